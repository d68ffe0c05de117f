"""What a person sees while a study runs: a line for each stage that starts and ends, and a live line for those that run.

On a terminal the live lines are redrawn; in a file or a pipe there is a line at most every half minute, so that a log stays readable.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from campana.cli.pace import PIPE_SECONDS, Pace, clock
from campana.core import observer as events
from campana.core.spec import Stage


class Console:
    """An observer that writes to stderr. Use as a context, so that the live lines are taken away at the end."""

    def __init__(self) -> None:
        self._num_to_build = 0
        self._num_ended = 0
        self._started: dict[str, float] = {}
        self._paces: dict[str, Pace] = {}
        self._latest: dict[str, str] = {}
        self._last_line = time.monotonic()
        self._live = _Live() if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.draw([])

    def __call__(self, event: events.Event) -> None:
        """Show one event."""
        match event:
            case events.Planned(reused, to_build):
                self._num_to_build = len(to_build)
                self._line(f"{len(reused) + len(to_build)} stages: {len(reused)} built, {len(to_build)} to build")
            case events.Started(stage):
                self._started[stage.key] = time.monotonic()
                self._latest[stage.key] = ""
                if self._live is None:
                    self._line(f"  start   {stage.label}")
            case events.Waiting(stage):
                self._line(f"  wait    {stage.label}: another run builds it")
            case events.Progressed(stage):
                self._progress(stage, event)
            case events.Built(stage, seconds):
                self._end(stage)
                self._line(f"  built   {stage.label}  ({seconds:.1f} s)  [{self._num_ended}/{self._num_to_build}]")
            case events.Failed(stage, error):
                self._end(stage)
                self._line(f"  failed  {stage.label}: " + error.replace("\n", "\n          "))
            case events.Blocked(stage, by):
                self._num_ended += 1
                self._line(f"  blocked {stage.label}: needs {by.label}")
            case events.Stopping() | events.Interrupted():
                self._stop(event)
            case events.Reused():
                pass
        if self._live:
            self._live.draw([self._running(key) for key in self._started])

    def _stop(self, event: events.Stopping | events.Interrupted) -> None:
        if isinstance(event, events.Stopping):
            self._line("stopping: what is being built saves what it can first; Ctrl-C again ends it at once")
            return
        for stage in event.stages:
            self._end(stage)
        self._line("interrupted: the same command goes on where it stopped")

    def _end(self, stage: Stage) -> None:
        self._num_ended += 1
        self._started.pop(stage.key, None)
        self._paces.pop(stage.key, None)
        self._latest.pop(stage.key, None)

    def _progress(self, stage: Stage, event: events.Progressed) -> None:
        self._started.setdefault(stage.key, time.monotonic())
        pace = self._paces.setdefault(stage.key, Pace())
        self._latest[stage.key] = f"  {stage.label}  {pace.told(event.done, event.total, event.unit, event.figures)}"
        if self._live is None and time.monotonic() - self._last_line > PIPE_SECONDS:
            self._line(self._latest[stage.key])

    def _running(self, key: str) -> str:
        seconds = time.monotonic() - self._started[key]
        return f"{self._latest.get(key) or '  starting'}  {clock(seconds)}"

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        if self._live:
            self._live.draw([])
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


class _Live:
    """The lines at the foot of the terminal."""

    def __init__(self) -> None:
        self._num_lines = 0

    def draw(self, lines: list[str]) -> None:
        """Take the last lines away and write these."""
        import shutil

        width = shutil.get_terminal_size().columns
        text = "\x1b[F\x1b[2K" * self._num_lines + "".join(line[: width - 1] + "\n" for line in lines)
        self._num_lines = len(lines)
        sys.stderr.write(text)
        sys.stderr.flush()
