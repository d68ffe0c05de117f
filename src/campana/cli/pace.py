"""How a person is told how far work is: how often, and in what words.

pace = Pace()
pace.told(event.done, event.total, "steps", {"loss": 1.2})   ->   " 57% of 1,600 steps  loss 1.2  12:30 left"
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

PIPE_SECONDS = 30.0
TERMINAL_SECONDS = 0.5
TRUSTED_SECONDS = 2.0
"""Time left is told after this much work, when its pace begins to mean something."""


def seconds_between(*, terminal: bool) -> float:
    """Between two reports."""
    return TERMINAL_SECONDS if terminal else PIPE_SECONDS


class Pace:
    """Of one piece of work. It counts from the first report on: loading is not pace, nor is what an earlier sitting did."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._first: tuple[float, float] | None = None

    def seconds_left(self, done: float, total: float) -> float | None:
        """None while nobody can say."""
        now = self._now()
        if self._first is None:
            self._first = now, done
        begun, before = self._first
        if now - begun < TRUSTED_SECONDS or not before < done < total:
            return None
        return (total - done) * (now - begun) / (done - before)

    def told(self, done: float, total: float, unit: str, figures: Mapping[str, float | str]) -> str:
        """Share, figures by name, and time left."""
        left = self.seconds_left(done, total)
        parts = [f"{done / total if total else 0.0:4.0%} of {total:,.0f} {unit}"]
        parts += [f"{name.replace('_', ' ')} {_short(value)}" for name, value in figures.items()]
        return "  ".join(parts + ([] if left is None else [f"{clock(left)} left"]))


def clock(seconds: float) -> str:
    """Minutes and seconds, hours where there are some: 12:30."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
