"""What the store asks of the disk: durable writes, hashes, whole-folder removal, and errors a person can act on.

with disk_errors(path):
    write_json(path / "task.json", task)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

from campana.errors import StoreError

HINTS = {
    errno.ENOSPC: "the disk is full: free some space (`campana gc` lists what could go), then run the same command again; nothing is lost",
    errno.EDQUOT: "your quota is used up: free some space, then run the same command again; nothing is lost",
    errno.EROFS: "the disk is read-only: mount it for writing, or give another store",
    errno.EACCES: "give yourself the right to write there, or give another store",
    errno.EPERM: "give yourself the right to write there, or give another store",
}
"""The troubles of a disk that are the person's to mend, and how."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn a full, read-only or forbidden disk into a `StoreError` that says what to do; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in HINTS:
            raise as_store_error(error, path) from error
        raise


def as_store_error(error: OSError, path: Path | str) -> StoreError:
    """The error in words, with its hint."""
    return StoreError(f"cannot be written: {error.strerror}", where=str(error.filename or path), hint=HINTS.get(error.errno or 0))


def write_json(path: Path, value: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write a JSON object: it is there whole, or as it was before. `durable`: through a power cut too, at the price of two fsyncs."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
        file.flush()
        if durable:
            os.fsync(file.fileno())
    fresh.replace(path)
    if durable:
        sync_folder(path.parent)


def read_json(path: Path, *, hint: str = "campana verify --repair") -> dict[str, Any]:
    """A JSON object. `FileNotFoundError` where there is none, `StoreError` where it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"damaged: {error}", where=str(path), hint=hint) from error
    if not isinstance(value, dict):
        raise StoreError("damaged: not a JSON object", where=str(path), hint=hint)
    return cast("dict[str, Any]", value)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Bring a file's content to the disk and make the file read-only."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, 0o444)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """All that is below a folder and is not a plain folder itself, in order. Links are not followed."""
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        found += files_below(entry) if entry.is_dir() and not entry.is_symlink() else [entry]
    return found


def remove_folder(folder: Path) -> None:
    """Delete a folder and all in it; it may be gone already, or go meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.lstat().st_size for path in files_below(folder)) if folder.is_dir() else 0
