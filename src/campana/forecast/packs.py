"""The passes of a training run, from the lengths of its rows: the same steps and packs that the trainer makes, without any tensor.

    passes = training_passes(train, held_out, batch_tokens=8192, micro_batch_tokens=2048, epochs=3, budget=1.0, num_evaluations=4, seed=0)
    passes.max_tokens, passes.num_steps, len(passes.packs)

It owns counting: tokens, supervised tokens and squared lengths of every pack. A long run is counted over its first steps and scaled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from campana.data.packing import pack, plan_steps
from campana.data.prepared import PreparedRows

Ints = npt.NDArray[np.int64]
MOST_STEPS = 64
"""Steps that are packed; a longer run is scaled from them by its tokens."""
VALIDATION_CHUNK = 256
"""Held-out rows that the trainer packs at once."""


@dataclass(frozen=True, eq=False)
class RowLengths:
    """The rows of a prepared file, as far as their cost goes; all three of one length."""

    lengths: Ints
    useful: Ints
    """Tokens up to the last supervised one: only these are computed."""
    supervised: Ints

    @classmethod
    def of(cls, rows: PreparedRows) -> RowLengths:
        """Of a prepared file."""
        ends = [int(np.flatnonzero(rows.row(index)[1][1:])[-1]) + 1 if rows.num_supervised[index] else 0 for index in range(len(rows))]
        return cls(np.asarray(rows.lengths, np.int64), np.asarray(ends, np.int64), np.asarray(rows.num_supervised, np.int64))

    @classmethod
    def open(cls, path: Path) -> RowLengths:
        """Of a prepared file on disk."""
        return cls.of(PreparedRows.open(path))

    def __len__(self) -> int:
        return len(self.lengths)

    def as_json(self) -> list[list[int]]:
        """Three lists."""
        return [self.lengths.tolist(), self.useful.tolist(), self.supervised.tolist()]

    @classmethod
    def from_json(cls, value: Sequence[Sequence[int]]) -> RowLengths:
        """As `as_json` wrote it."""
        lengths, useful, supervised = (np.asarray(column, np.int64) for column in value)
        return cls(lengths, useful, supervised)


@dataclass(frozen=True, slots=True)
class PackWork:
    """One forward (and backward) pass."""

    tokens: int
    supervised: int
    squares: int
    """Sum over its rows of length squared."""
    opens_step: bool = False
    """The first of its optimiser step."""


@dataclass(frozen=True)
class TrainingPasses:
    """All passes of a run."""

    packs: tuple[PackWork, ...]
    scale: float
    """The run is so many times `packs`; 1 where they are all."""
    num_steps: int
    validation: tuple[PackWork, ...]
    """Of one evaluation."""
    num_evaluations: int
    total_tokens: int
    """Of all steps' rows, as they are in the data."""
    longest_row: int
    """Tokens that are computed of the longest row."""

    @cached_property
    def whole(self) -> PackWork:
        """All packs together, for what is counted and not timed."""
        return _together(self.packs)

    @cached_property
    def evaluation(self) -> PackWork:
        """All packs of one evaluation together."""
        return _together(self.validation)

    @property
    def max_tokens(self) -> int:
        """Of the largest pack that is learned from."""
        return max((each.tokens for each in self.packs), default=0)


def _together(packs: Sequence[PackWork]) -> PackWork:
    return PackWork(sum(each.tokens for each in packs), sum(each.supervised for each in packs), sum(each.squares for each in packs))


def training_passes(
    train: RowLengths,
    held_out: RowLengths,
    *,
    batch_tokens: int,
    micro_batch_tokens: int,
    epochs: float,
    budget: float,
    num_evaluations: int,
    seed: int,
    alone: bool = False,
    most_steps: int = MOST_STEPS,
) -> TrainingPasses:
    """The passes of `tuning.job.tune` over these rows. `alone`: an architecture whose rows cannot share a pack."""
    steps = plan_steps(train.lengths, batch_tokens, epochs, seed)
    steps = steps[: max(1, round(len(steps) * budget))]
    evaluations = {round(len(steps) * k / num_evaluations) for k in range(1, num_evaluations + 1)} | {0}
    total = int(sum(train.lengths[members].sum() for members in steps))
    counted = steps[:most_steps]
    seen = int(sum(train.lengths[members].sum() for members in counted))
    packs = [each for members in counted for each in step_packs(train, members, micro_batch_tokens, alone=alone)]
    chunks = [range(start, min(start + VALIDATION_CHUNK, len(held_out))) for start in range(0, len(held_out), VALIDATION_CHUNK)]
    validation = [each for chunk in chunks for each in step_packs(held_out, chunk, micro_batch_tokens, alone=alone)]
    longest = int(train.useful.max(initial=0))
    scale = 1.0 if len(counted) == len(steps) else total / seen
    return TrainingPasses(tuple(packs), scale, len(steps), tuple(validation), len(evaluations) if len(held_out) else 0, total, longest)


def step_packs(rows: RowLengths, members: Iterable[int], budget: int, *, alone: bool = False) -> list[PackWork]:
    """The packs of one step, in the trainer's order."""
    index = np.fromiter(members, np.int64)
    useful, supervised = rows.useful[index], rows.supervised[index]
    bins = [[place] for place in range(len(index))] if alone else pack(useful, budget)
    return [
        PackWork(int(useful[b].sum()), int(supervised[b].sum()), int((useful[b] ** 2).sum()), opens_step=number == 0)
        for number, b in enumerate(bins)
    ]
