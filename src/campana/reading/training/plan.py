"""Which windows each step draws and reads: whole epochs in a seeded order, rows of like length together, steps of equal numbers of tokens.

    steps = drawn_steps(table, "all", batch_tokens=2048, num_steps=600, seed=0)

The order is a function of the seed alone: every arm that draws from the same questions sees them in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from campana.reading.training.objectives.cross_entropy import CrossEntropy
from campana.reading.training.questions import NULL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from campana.reading.training.objective import Objective, StepRows
    from campana.reading.training.questions import TrainingTable, Triple, Which

PLAIN = CrossEntropy()
"""What the first `plain_steps` minimise."""

BUCKET_STEPS = 32
"""Steps whose rows are sorted by length together: enough to leave under 5% of padding, few enough to mix well."""


def drawn_steps(table: TrainingTable, which: Which, batch_tokens: int, num_steps: int, seed: int) -> list[NDArray[np.int64]]:
    """The windows of each step of a run that learns from a table."""
    units = table.units(which)
    balance = table.target_first[units] == NULL if which == "balanced" else None
    return plan_steps(units, table.lengths, batch_tokens, num_steps, seed, balance)


def read_rows(
    step: int, windows: NDArray[np.int64], triples: Mapping[int, Triple], objective: Objective, plain_steps: int, seed: int
) -> tuple[Objective, StepRows]:
    """What a step (from 0) minimises, and the rows that it reads where it draws these windows."""
    chosen = PLAIN if step < plain_steps else objective
    return chosen, chosen.rows([int(window) for window in windows], triples, np.random.default_rng([seed, 1 + step]))


def plan_steps(
    units: NDArray[np.int64],
    lengths: NDArray[np.int64],
    batch_tokens: int,
    num_steps: int,
    seed: int,
    balance: NDArray[np.bool_] | None = None,
) -> list[NDArray[np.int64]]:
    """The windows of each step: at most `batch_tokens` tokens without padding, at least one window.

    With `balance` (U,), the kind of each unit, an epoch is all units of the rarer kind and as many of the other, drawn anew each time.
    """
    steps: list[NDArray[np.int64]] = []
    epoch = 0
    while len(steps) < num_steps:
        random = np.random.default_rng([seed, epoch])
        drawn = units if balance is None else _even(units, balance, random)
        order = drawn[random.permutation(len(drawn))]
        for bucket in _cut(order, lengths, batch_tokens * BUCKET_STEPS):
            sorted_bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
            parts = _cut(sorted_bucket, lengths, batch_tokens)
            steps += [parts[index] for index in random.permutation(len(parts))]
        epoch += 1
    return steps[:num_steps]


def _even(units: NDArray[np.int64], kind: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """All units of the rarer kind and as many of the other; all units where there is one kind only."""
    few, many = sorted((units[kind], units[~kind]), key=len)
    return np.concatenate([few, random.permutation(many)[: len(few)]]) if len(few) else many


def passes(lengths: Sequence[int] | NDArray[np.int64], most_tokens: int) -> list[NDArray[np.int64]]:
    """Rows of one step in forward passes of at most `most_tokens`, padding counted; places in `lengths`, like lengths together."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    found: list[NDArray[np.int64]] = []
    start = 0
    while start < len(order):
        size = max(1, most_tokens // int(lengths[int(order[start])]))
        found.append(order[start : start + size])
        start += size
    return found


def _cut(windows: NDArray[np.int64], lengths: NDArray[np.int64], most_tokens: int) -> list[NDArray[np.int64]]:
    """Runs of at most `most_tokens` tokens, in order."""
    parts: list[NDArray[np.int64]] = []
    start, total = 0, 0
    for place, window in enumerate(windows):
        length = int(lengths[window])
        if total and total + length > most_tokens:
            parts.append(windows[start:place])
            start, total = place, 0
        total += length
    if len(windows):
        parts.append(windows[start:])
    return parts
