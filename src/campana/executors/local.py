"""`Local`: each task in a process of its own on this machine, so that memory is given back and a crash is one stage's.

    with Local() as executor:
        run([report], store, executor, observer)

Importing torch and transformers costs seconds a process. On Linux without accelerators tasks are therefore forked from one server
process that has imported what they need (`executors.prefork`): the same argv, in tens of milliseconds. Where the server cannot be,
or has died, a task gets a fresh interpreter.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from campana.core.executor import Ended, Hear, Job
from campana.core.work import LOG_NAME
from campana.executors.environment import task_environment
from campana.executors.lines import Lines
from campana.executors.prefork import PreforkServer

ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd")
"""Where one is, tasks are not forked: accelerator runtimes do not survive it."""


def can_prefork() -> bool:
    """Whether forking tasks from a warm process is safe here."""
    return sys.platform == "linux" and not any(Path(device).exists() for device in ACCELERATORS)


class _Child:
    """A task in a fresh interpreter."""

    def __init__(self, job: Job, hear: Hear) -> None:
        argv = [sys.executable, *job.argv(job.lock_descriptor), "--parent", str(os.getpid())]
        with (job.task_path.parent / LOG_NAME).open("a") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[job.lock_descriptor],
                start_new_session=True,
                bufsize=0,
                env=task_environment(),
            )
        assert self.process.stdout is not None
        self.lines = Lines(job.key, self.process.stdout.fileno(), hear)

    def poll(self) -> int | None:
        """The exit code, once there is one and every line has been told."""
        code = self.process.poll()
        if code is not None:
            self.lines.read()
            assert self.process.stdout is not None
            self.process.stdout.close()
        return code

    def end(self) -> None:
        """Kill it, and give its pipe back."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group, which is the child's own."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class Local:
    """Tasks in processes of this machine."""

    is_serial = False

    def __init__(self, *, prefork: bool | None = None) -> None:
        """`prefork`: fork tasks from a warm server; None: where that is safe."""
        self._server = PreforkServer() if (can_prefork() if prefork is None else prefork) else None
        self._children: dict[str, _Child] = {}
        self._hear: dict[str, Hear] = {}

    def start(self, job: Job, hear: Hear) -> None:
        """Start a process for the task."""
        self._hear[job.key] = hear
        if self._server is not None and self._server.start(job, hear):
            return
        self._children[job.key] = _Child(job, hear)

    def wait(self, seconds: float) -> None:
        """Wait for lines and ends."""
        with selectors.DefaultSelector() as selector:
            sources = [child.lines for child in self._children.values() if not child.lines.is_over]
            sources += self._server.sources() if self._server is not None else []
            for source in sources:
                selector.register(source.fileno(), selectors.EVENT_READ, source)
            if not sources:
                time.sleep(min(seconds, 0.01) if self._children else seconds)
            for chosen, _ in selector.select(seconds) if sources else ():
                chosen.data.read()
        for key, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                del self._children[key]
                self._end(key, code)
        if self._server is not None:
            for job, hear in self._server.take_refused():
                self._children[job.key] = _Child(job, hear)
                os.close(job.lock_descriptor)
            for key, code in self._server.take_ended():
                self._end(key, code)

    def stop(self, keys: Collection[str], *, at_once: bool) -> None:
        """Signal the tasks' process groups."""
        number = signal.SIGKILL if at_once else signal.SIGTERM
        for key in keys:
            if key in self._children:
                self._children[key].signal(number)
            elif self._server is not None:
                self._server.signal(key, number)

    def close(self) -> None:
        """End the server, and whatever still runs."""
        for child in self._children.values():
            child.end()
        self._children.clear()
        if self._server is not None:
            self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _end(self, key: str, code: int) -> None:
        self._hear.pop(key)(Ended(key, code))
