"""Attempts: every try to build a key, with its end and its cost. They survive publishing, so no failed or killed run is free.

It owns `attempts/<key>.jsonl` (ended tries) and `work/<key>/attempt.json` (the open one). A try that was killed cannot write its
own end: whoever next holds the key's lock writes it, with the last sign of life (the time of `work/<key>/alive`) as its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from campana.core.disk import write_json
from campana.journal import Journal

Outcome = Literal["built", "failed", "killed"]
OPEN_NAME, ALIVE_NAME = "attempt.json", "alive"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One ended try."""

    started: float
    """Seconds since the epoch; no two tries of a key share it."""
    seconds: float
    outcome: Outcome
    error: str
    """Empty where built."""
    host: str


class Attempts:
    """The tries of one key. Writing needs the key's lock."""

    def __init__(self, log_path: Path, work_dir: Path) -> None:
        self._log_path = log_path
        self._open_path = work_dir / OPEN_NAME
        self._alive_path = work_dir / ALIVE_NAME

    def all(self) -> list[Attempt]:
        """Ended tries, oldest first."""
        ended: dict[float, Attempt] = {}
        for row in Journal(self._log_path).rows():
            attempt = _attempt(row)
            if attempt is not None:
                ended.setdefault(attempt.started, attempt)
        return sorted(ended.values(), key=lambda attempt: attempt.started)

    def begin(self) -> None:
        """Open a try. An open one that is found was killed, and is ended first."""
        self.settle()
        last = max((attempt.started for attempt in self.all()), default=0.0)
        opened = {"started": max(time.time(), last + 1e-6), "host": platform.node(), "pid": os.getpid()}
        write_json(self._open_path, opened, durable=False)
        self._alive_path.touch()

    def touch(self) -> None:
        """A sign of life. It makes no file: the work folder may be on its way out, and could not go with a new file in it."""
        os.utime(self._alive_path)

    def end(self, outcome: Outcome, seconds: float, error: str = "") -> None:
        """Close the open try."""
        opened = self._opened()
        if opened is None:
            return
        attempt = Attempt(float(opened["started"]), seconds, outcome, error, str(opened["host"]))
        with Journal(self._log_path) as journal:
            journal.append({"schema": "campana.attempt/1", **asdict(attempt)})
        self._open_path.unlink()

    def settle(self, error: str = "killed", built_seconds: float | None = None) -> None:
        """End a try whose process is gone: built where the object was published before the kill, else killed."""
        if built_seconds is not None:
            self.end("built", built_seconds)
        else:
            self.end("killed", self._lived(), error)

    def unsettled(self) -> Attempt | None:
        """The open try as it would be settled now, for readers that hold no lock."""
        opened = self._opened()
        return Attempt(float(opened["started"]), self._lived(), "killed", "killed", str(opened["host"])) if opened else None

    def _lived(self) -> float:
        opened = self._opened()
        with contextlib.suppress(FileNotFoundError):
            return max(0.0, self._alive_path.stat().st_mtime - float(opened["started"])) if opened else 0.0
        return 0.0

    def _opened(self) -> dict[str, Any] | None:
        """The open try; a half-written note (a power cut) counts as none."""
        try:
            opened = json.loads(self._open_path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        whole = isinstance(opened, dict) and {"started", "host"} <= opened.keys()
        return cast("dict[str, Any]", opened) if whole else None


def _attempt(row: dict[str, Any]) -> Attempt | None:
    try:
        return Attempt(**{name: row[name] for name in Attempt.__slots__})
    except KeyError:
        return None
