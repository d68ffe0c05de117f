"""`Inline`: run each task to its end in this very process, one after the other, so that `breakpoint()` works in a stage.

run([report], store, Inline(raise_errors=True))   # an error reaches the debugger as it was raised
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from campana.core.executor import Ended, Hear, Job, Notice
from campana.core.store import Store
from campana.core.task import Task
from campana.core.work import perform


class Inline:
    """Tasks in this process. Ctrl-C reaches the stage as a KeyboardInterrupt. Threads and stdout are left as they are."""

    is_serial = True

    def __init__(self, *, raise_errors: bool = False, cache_dir: Path | None = None) -> None:
        """`raise_errors`: end the run by the first error of a stage, as it was raised. `cache_dir`: where downloads are kept."""
        self._raise_errors = raise_errors
        self._cache_dir = cache_dir

    def start(self, job: Job, hear: Hear) -> None:
        """Build the stage before returning."""
        task = Task.read(job.task_path)
        task = replace(task, resources=replace(task.resources, ranks=1))  # one process is one rank
        error = perform(
            task,
            Store(Path(task.store)),
            lambda row: hear(Notice(job.key, row)),
            cache_dir=self._cache_dir,
            raise_errors=self._raise_errors,
        )
        hear(Ended(job.key, 0 if error is None else 1))

    def wait(self, seconds: float) -> None:
        """Nothing can be going on here: only another run, whose stage is waited for."""
        time.sleep(seconds)

    def stop(self, keys: Collection[str], *, at_once: bool) -> None:
        """Nothing can be going on."""

    def close(self) -> None:
        """Nothing is held."""
