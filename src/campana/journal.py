"""The journal: an append-only file of JSON objects, one a line, that survives a kill at any byte.

It owns how rows reach the disk and how a torn tail is mended. It refuses rows that are not JSON (NaN, sets, objects).

    with Journal(scratch_dir / "answers.jsonl") as journal:
        done = {row["id"] for row in journal.rows()}
        for item in items:
            if item.id not in done:
                journal.append({"id": item.id, "text": answer(item)})

A row counts once its newline is on the disk. What a kill left after the last newline is cut off by the next `append`; a line
damaged in any other way is passed over and counted in `num_damaged`, so the caller does that piece of work again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from campana.errors import StoreError


class Journal:
    """A JSONL file that grows by whole lines. One writer at a time; threads of that writer may share it."""

    def __init__(self, path: Path, sync_every: int = 1) -> None:
        """`sync_every`: rows between two fsyncs. A kill of the process loses nothing either way; a power cut loses at most so many rows.

        Nothing is opened or created before the first `append`.
        """
        if sync_every < 1:
            raise ValueError(f"sync_every must be at least 1, not {sync_every}")
        self.path = path
        self.num_damaged = 0
        """Lines that the last `rows()` passed over because they are not whole JSON objects."""
        self._sync_every = sync_every
        self._unsynced = 0
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows, oldest first; empty where there is no file yet."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise _store_error("read", self.path, error) from error
        *lines, tail = data.split(b"\n")
        rows = [row for line in lines if line and (row := _parse(line)) is not None]
        self.num_damaged = sum(1 for line in lines if line) - len(rows) + bool(tail)
        return rows

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row. It is whole on the disk when this returns (if `sync_every` is 1), or not there at all."""
        line = _encode(row)
        with self._lock:
            try:
                descriptor = self._open()
                end = os.fstat(descriptor).st_size
                self._write(descriptor, line, end)
                self._unsynced += 1
                if self._unsynced >= self._sync_every:
                    os.fsync(descriptor)
                    self._unsynced = 0
            except OSError as error:
                raise _store_error("write", self.path, error) from error

    def close(self) -> None:
        """Bring everything to the disk. The journal may be appended to again."""
        with self._lock:
            if self._descriptor is None:
                return
            descriptor, self._descriptor = self._descriptor, None
            unsynced, self._unsynced = self._unsynced, 0
            try:
                if unsynced:
                    os.fsync(descriptor)
            except OSError as error:
                raise _store_error("write", self.path, error) from error
            finally:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self) -> int:
        """The descriptor for appending; at the first call the torn tail of an earlier writer is cut off."""
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.ftruncate(descriptor, _whole_length(descriptor))
            self._descriptor = descriptor
        return self._descriptor

    @staticmethod
    def _write(descriptor: int, line: bytes, end: int) -> None:
        """Append a line; where the disk is full the part that was written is taken back."""
        written = 0
        try:
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, end)
            raise


def _encode(row: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8; its escape has
        return (json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n").encode()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", row) if isinstance(row, dict) else None


def _whole_length(descriptor: int) -> int:
    """Bytes up to and with the last newline, read backwards in blocks."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _store_error(verb: str, path: Path, error: OSError) -> StoreError:
    hints = {
        errno.ENOSPC: "the disk is full: free some space, then run the same command again; nothing that was done is lost",
        errno.EROFS: "the disk is read-only: mount it for writing, or give another store",
        errno.EACCES: "give yourself the right to write there, or give another store",
    }
    return StoreError(f"cannot {verb} the journal: {error.strerror}", where=str(path), hint=hints.get(error.errno or 0))
