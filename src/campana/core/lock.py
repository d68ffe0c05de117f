"""Locks: one flock a key. It lives exactly as long as a process that holds its descriptor, so no stale lock can be.

lock = KeyLock.acquire(path)
if lock is None: ...            # a living process holds it
child = Popen(..., pass_fds=[lock.descriptor])
lock.hand_over()                # the child alone holds it now
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class KeyLock:
    """A held lock. The file is deleted by the last owner; a lock on a deleted file is never taken for the real one."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path, *, shared: bool = False) -> Self | None:
        """The lock, or None at once where a living process holds it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if _is_at(path, descriptor):
                return cls(path, descriptor)
            os.close(descriptor)

    @classmethod
    def adopt(cls, path: Path, descriptor: int) -> Self:
        """The lock that another process took and handed over as an open descriptor."""
        return cls(path, descriptor)

    @staticmethod
    def is_held(path: Path) -> bool:
        """Whether a living process holds it. Changes nothing, and works on a read-only disk."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def hand_over(self) -> None:
        """Close our descriptor; the lock stays held by whoever inherited it."""
        os.close(self.descriptor)

    def release(self) -> None:
        """Give the lock up, and delete its file."""
        self.path.unlink(missing_ok=True)
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)  # also for children of a stage that outlive it
        os.close(self.descriptor)

    def release_shared(self) -> None:
        """Give a shared lock up; its file stays for the others."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one that has this name."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)
