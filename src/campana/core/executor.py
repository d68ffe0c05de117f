"""The seam between the runner and where tasks run. An executor starts a task and tells what becomes of it; it decides nothing.

    executor.start(job, hear)          # hear(Notice(...)) and hear(Ended(...)) come from here or from wait
    executor.wait(0.2)

Executors live in `campana.executors`. The contract suite is `tests/core/test_executors.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Job:
    """One task to be run."""

    key: str
    task_path: Path
    lock_descriptor: int
    """The flock of the key. The process that builds must hold it to its end; the runner closes its own copy after `start`."""
    imports: tuple[str, ...] = ()
    """Slow modules that the stage will import."""

    def argv(self, lock_descriptor: int) -> list[str]:
        """The arguments of `python` that run the task in a process where the lock is `lock_descriptor`."""
        return ["-m", "campana.worker", str(self.task_path), "--lock-fd", str(lock_descriptor)]


@dataclass(frozen=True, slots=True)
class Notice:
    """A line from a running task: {"event": "progress", ...} or {"event": "failed", "error": ...}."""

    key: str
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """The task's process is gone. Whether it built the key is for the store to say."""

    key: str
    exit_code: int
    """As of `subprocess`: negative is the signal that killed it."""


Hear = Callable[[Notice | Ended], None]


class Executor(Protocol):
    """A place where tasks run."""

    @property
    def is_serial(self) -> bool:
        """Whether `start` runs the task to its end in this very thread, so that Ctrl-C reaches it directly."""
        ...

    def start(self, job: Job, hear: Hear) -> None:
        """Run a task. What becomes of it is told to `hear`, from within `start` or `wait`."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait for news, at most so long, and tell it."""
        ...

    def stop(self, keys: Collection[str], *, at_once: bool) -> None:
        """Ask the tasks' whole process groups to end (SIGTERM), or make them (SIGKILL). `Ended` is still told by `wait`."""
        ...

    def close(self) -> None:
        """Give back what the executor itself holds."""
        ...
