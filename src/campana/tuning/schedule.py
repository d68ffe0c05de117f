"""The learning rate of each step, as a share of its peak. Arithmetic on `options.Schedule`; refuses nothing.

rate = peak * share(Schedule(kind="cosine", warmup=0.1), step=0, num_steps=100)     # 1/11 of the peak
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from campana.tuning.options import Schedule


def share(schedule: Schedule, step: int, num_steps: int) -> float:
    """The rate of step `step` (0-based) of `num_steps`, as a share of the peak.

    Warm-up of w = round(warmup * num_steps) steps gives (step + 1) / (w + 1): never 0, and the peak at step w. The decay reaches
    `floor` one step after the last, so that every step learns.
    """
    warmup = round(schedule.warmup * num_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.kind == "constant":
        return 1.0
    length = num_steps - warmup
    start = warmup
    if schedule.kind == "wsd":
        length = min(max(1, round(schedule.decay * num_steps)), num_steps - warmup)
        start = num_steps - length
    if step < start:
        return 1.0
    done = (step - start) / length
    left = 0.5 * (1.0 + math.cos(math.pi * done)) if schedule.kind == "cosine" else 1.0 - done
    return schedule.floor + (1.0 - schedule.floor) * left
