"""Content digests: how data from outside is known, whatever it is called and wherever it lies.

It owns the digest of a file or a folder, and a cache so that a large file is read once. It refuses what is not a file, what is
missing, and what changes while it is read.

    cache = DigestCache(store.root)
    source = Source(digest_path(path, cache), path)   # sha256:9f86d0...
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from campana.core.canon import canonical
from campana.errors import DataError
from campana.parts import nearest

CACHE_NAME = "digests.json"
SETTLED_SECONDS = 2.0
"""A file younger than this may change again within one tick of its clock, so its digest is not remembered."""


def digest_path(path: Path, cache: DigestCache | None = None) -> str:
    """`sha256:...` of a file's content, or of a folder's: the relative names of its files in order, with their digests.

    Links are followed. Empty folders, permissions and times are no content.
    """
    if not path.exists():
        raise _missing(path)
    digest = _folder_digest(path, cache) if path.is_dir() else _file_digest(path, cache)
    if cache is not None:
        cache.save()
    return "sha256:" + digest


def _missing(path: Path) -> DataError:
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(path.name, siblings) if 0 < len(siblings) <= 50 else f"looked in {path.parent.resolve()}"
    return DataError("there is no such file or folder", where=str(path), hint=hint)


def _folder_digest(folder: Path, cache: DigestCache | None) -> str:
    listing = [[path.relative_to(folder).as_posix(), _file_digest(path, cache)] for path in sorted(_files(folder, ()))]
    listing.sort()
    return hashlib.sha256(b"campana.folder/1\n" + canonical(listing)).hexdigest()


def _files(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        raise DataError("this link leads back into its own folder", where=str(folder))
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, (*above, real))
        else:
            yield entry


def _file_digest(path: Path, cache: DigestCache | None) -> str:
    try:
        before = path.stat()
        if not stat.S_ISREG(before.st_mode):
            raise DataError("neither a file nor a folder", where=str(path))
        known = cache.get(path, before) if cache is not None else None
        if known is not None:
            return known
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = path.stat()
    except FileNotFoundError as error:
        raise DataError("a link that leads nowhere", where=str(path)) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if _stamp(before) != _stamp(after):
        raise DataError("changed while it was read", where=str(path), hint="wait until it is written, then run the same command again")
    if cache is not None:
        cache.put(path, after, digest)
    return digest


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]


class DigestCache:
    """Digests by path, size, times and inode, in one file of a folder. Only a cache: it may be deleted, or be read-only."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CACHE_NAME
        self._known: dict[str, Any] | None = None
        self._new: dict[str, list[Any]] = {}

    def get(self, path: Path, status: os.stat_result) -> str | None:
        """The digest of a file that has not changed since."""
        if self._known is None:
            self._known = self._read()
        entry = self._known.get(str(path.resolve()))
        return str(entry[-1]) if isinstance(entry, list) and entry[:-1] == _stamp(status) else None

    def put(self, path: Path, status: os.stat_result, digest: str) -> None:
        """Remember a digest."""
        if time.time() - max(status.st_mtime, status.st_ctime) < SETTLED_SECONDS:
            return
        self._new[str(path.resolve())] = [*_stamp(status), digest]

    def save(self) -> None:
        """Bring what is new to the disk, beside what other processes have written since."""
        if not self._new:
            return
        self._known = {**self._read(), **self._new}
        self._new = {}
        with contextlib.suppress(OSError):  # a cache that cannot be written only costs time; where no store is, none is made
            fresh = self._path.with_name(f"{CACHE_NAME}.{os.getpid()}")
            fresh.write_text(json.dumps(self._known))
            fresh.replace(self._path)

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._path.read_text()))
        except (OSError, ValueError, TypeError):
            return {}
