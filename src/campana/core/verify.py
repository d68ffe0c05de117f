"""Verify: is every stored byte still what its manifest says? It finds damage, says so, and sets it aside when told to.

for damage in verify(store): print(damage)
verify(store, repair=True)     # the next run builds what was set aside again
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from campana.core.digest import DigestCache, digest_path
from campana.core.disk import files_below, sha256_file
from campana.core.keys import hash_recipe
from campana.core.manifest import NAME, Manifest
from campana.core.store import Store
from campana.errors import DataError, StoreError, StudyError

LARGE_BYTES = 32_000_000
"""Files up to this are hashed at every use: 20 ms."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong with a stored object."""

    key: str
    path: str
    """The file in the object; `manifest.json` for the manifest itself, empty for the whole object."""
    problem: Literal["missing", "changed", "unexpected", "damaged", "incomplete", "misfiled"]
    label: str = ""
    set_aside: str = ""
    """Where the object is now, relative to the store; empty where it still lies in its place."""

    def __str__(self) -> str:
        where = f" ({self.label})" if self.label else ""
        aside = f"; set aside in {self.set_aside}, the next run builds it again" if self.set_aside else ""
        return f"{self.key[:12]}{where}: {self.path or 'object'}: {self.problem}{aside}"


def verify(
    store: Store, keys: Iterable[str] | None = None, *, repair: bool = False, tell: Callable[[str], None] | None = None
) -> list[Damage]:
    """Read every file of the objects (all, where `keys` is None) and compare it with its hash; compare each key with its recipe.

    `repair` moves damaged objects into `quarantine/`; one that is being built is left alone. `tell` hears each key before it is read.
    """
    found: list[Damage] = []
    for key in _present(store) if keys is None else keys:
        if tell is not None:
            tell(key)
        damages = _check(store, key)
        if damages and repair:
            damages = _set_aside(store, key, damages)
        found += damages
    return found


def sound_path(store: Store, key: str, names: Iterable[str] | None = None) -> Path:
    """The folder of a built key, with these files of it (all, where `names` is None) found to be what was published.

    What is read must be what was written, or a damaged file would move numbers without a word. Large files are read once and known by
    their size and times from then on. Raises StoreError where a file is damaged or gone.
    """
    folder, manifest = store.path(key), store.manifest(key)
    for name in manifest.files if names is None else names:
        file = manifest.files.get(name)
        cache = DigestCache(store.root) if file is not None and file.size > LARGE_BYTES else None
        try:
            is_sound = file is not None and digest_path(folder / name, cache) == f"sha256:{file.sha256}"
        except DataError:
            is_sound = False
        if not is_sound:
            raise StoreError(
                f"{name} is not what was written: the stored object is damaged",
                where=manifest.label or key[:12],
                hint="campana verify --repair, then run the same command again",
            )
    return folder


def _present(store: Store) -> list[str]:
    """All folders on the shelves, those without a manifest too."""
    return sorted(path.name for path in (store.root / "objects").glob("??/*") if path.is_dir())


def _check(store: Store, key: str) -> list[Damage]:
    folder = store.object_dir(key)
    try:
        manifest = Manifest.read(folder)
    except FileNotFoundError:
        return [Damage(key, "", "incomplete")]
    except StoreError:
        return [Damage(key, NAME, "damaged")]
    damages: list[Damage] = []
    if manifest.key != key or _hash(manifest) != key:
        damages.append(Damage(key, NAME, "misfiled", manifest.label))
    present = {path.relative_to(folder / "files").as_posix(): path for path in files_below(folder / "files")}
    damages += [Damage(key, name, "unexpected", manifest.label) for name in present if name not in manifest.files]
    for name, file in manifest.files.items():
        if name not in present:
            damages.append(Damage(key, name, "missing", manifest.label))
        elif not _is_same(present[name], file.size, file.sha256):
            damages.append(Damage(key, name, "changed", manifest.label))
    return damages


def _hash(manifest: Manifest) -> str:
    with contextlib.suppress(StudyError):
        return hash_recipe(manifest.recipe)
    return ""


def _is_same(path: Path, size: int, sha256: str) -> bool:
    try:
        return path.stat().st_size == size and sha256_file(path) == sha256
    except OSError:  # the disk itself cannot give the bytes back
        return False


def _set_aside(store: Store, key: str, damages: list[Damage]) -> list[Damage]:
    lock = store.lock(key)
    if lock is None:
        return damages
    with lock:
        place = store.set_aside(key).relative_to(store.root).as_posix()
    return [Damage(each.key, each.path, each.problem, each.label, place) for each in damages]
