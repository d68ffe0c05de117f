"""Garbage collection: what no run names any more, with what building it again would cost. It lists first and deletes when told to.

    garbage = plan_gc(store)
    for each in garbage: print(each)
    sweep(store, garbage)

Marked are the keys that the run records in `store/runs` and the keep-list name. Never swept: what is marked, what people
labelled (kind `annotate`, in any state), what is being built, and anything at all while a run goes on.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from campana.core.disk import disk_errors, folder_bytes
from campana.core.manifest import Manifest
from campana.core.store import Store, discard
from campana.core.task import NAME as TASK_NAME
from campana.errors import StoreError

KEPT_KINDS = frozenset({"annotate"})
"""Kinds whose objects no computer can build again."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that could be deleted."""

    key: str
    what: Literal["object", "unfinished", "set aside"]
    """A built object, what a try left behind (checkpoints, journals), or a damaged object that `verify` set aside."""
    path: str
    """Relative to the store."""
    label: str
    kind: str
    num_bytes: int
    seconds: float
    """What building it again would take, by what it took; for an unfinished one, what its tries took so far."""

    def __str__(self) -> str:
        return f"{self.key[:12]}  {self.what}  {self.kind}  {self.label}  {self.num_bytes} bytes  {self.seconds:.1f} s to build again"


def marked(store: Store, keep: Iterable[str] = (), last_runs: int | None = None) -> set[str]:
    """The keys to keep: all that runs name, or that the last so many records of every run name, and the keep-list."""
    keys = set(keep)
    for records in store.runs_by_study().values():
        for record in list(records.values())[-last_runs:] if last_runs else records.values():
            keys.update(record["keys"])
    return keys


def plan_gc(store: Store, keep: Iterable[str] = (), last_runs: int | None = None) -> list[Garbage]:
    """What could be deleted, dearest first. Changes nothing.

    `last_runs`: forget all but the last so many records of every study, that is, its earlier forms; None: forget none.
    """
    kept = marked(store, keep, last_runs)
    found = [each for key in store.built_keys() if key not in kept and (each := _object(store, key)) is not None]
    found += [each for key in store.work_keys() if key not in kept and (each := _unfinished(store, key)) is not None]
    found += [each for folder in _folders(store.root / "quarantine") if (each := _set_aside(store, folder)) is not None]
    return sorted(found, key=lambda each: (-each.seconds, each.key))


def sweep(store: Store, garbage: Collection[Garbage], keep: Iterable[str] = (), last_runs: int | None = None) -> list[Garbage]:
    """Delete what `plan_gc` listed and is still garbage; returns what was deleted.

    Raises `StoreError` while a run goes on. With `last_runs` the forgotten run records are deleted too.
    """
    lock = store.for_sweeping()
    if lock is None:
        raise StoreError("a run goes on in this store", where=str(store.root), hint="wait until it has ended, then sweep")
    with lock:
        still = set(plan_gc(store, keep, last_runs))
        swept = [each for each in garbage if each in still and _delete(store, each)]
        if last_runs:
            _forget(store, last_runs)
    return swept


def _object(store: Store, key: str) -> Garbage | None:
    try:
        manifest = store.manifest(key)
    except StoreError:  # a damaged manifest may be that of labels: `verify` is to look at it
        return None
    if manifest.kind in KEPT_KINDS or store.is_running(key):
        return None
    num_bytes = sum(file.size for file in manifest.files.values())
    path = store.object_dir(key).relative_to(store.root).as_posix()
    return Garbage(key, "object", path, manifest.label, manifest.kind, num_bytes, manifest.seconds)


def _unfinished(store: Store, key: str) -> Garbage | None:
    """What a try left behind. One whose task cannot be read may hold labels, and stays."""
    folder = store.work_dir(key)
    try:
        task = json.loads((folder / TASK_NAME).read_text(encoding="utf-8"))
        kind, label = str(task["kind"]), str(task["label"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if kind in KEPT_KINDS or store.is_running(key):
        return None
    path = folder.relative_to(store.root).as_posix()
    return Garbage(key, "unfinished", path, label, kind, folder_bytes(folder), store.wasted_seconds(key))


def _set_aside(store: Store, folder: Path) -> Garbage | None:
    """A damaged object. One whose manifest cannot be read may be labels, and stays; one whose deletion was cut short goes."""
    path = folder.relative_to(store.root).as_posix()
    try:
        manifest = Manifest.read(folder)
    except FileNotFoundError:
        is_empty = not (folder / "files").exists()
        return Garbage(folder.name.partition("-")[0], "set aside", path, "", "", 0, 0.0) if is_empty else None
    except (StoreError, OSError):
        return None
    if manifest.kind in KEPT_KINDS:
        return None
    return Garbage(manifest.key, "set aside", path, manifest.label, manifest.kind, folder_bytes(folder), 0.0)


def _delete(store: Store, garbage: Garbage) -> bool:
    if garbage.what == "set aside":
        with disk_errors(store.root):
            discard(store.root / garbage.path)
        return True
    lock = store.lock(garbage.key)
    if lock is None:
        return False
    with lock:
        store.remove(garbage.key)
    return True


def _forget(store: Store, last_runs: int) -> None:
    for records in store.runs_by_study().values():
        for path in list(records)[:-last_runs]:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
