"""The passes of answering a suite, from the lengths of prompts and answers: who is read when, as the engine's schedule has it.

    passes = answering_passes(prompts=[31, 18], answers=[24, 7], max_rows=128, prefill_tokens=1024)
    passes = batched_passes(prompts=[31, 18], answers=[24, 7], batch_size=16)

It owns counting, and repeats the schedules of `generation.loop` and of the `transformers` engine; a test compares them pass by pass.
Prompts count without what all of them begin with, where the engine reads that once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from campana.generation.kv import PAGE, ROWS, SLAB, capacity_for, pages_for
from campana.generation.schedule import pack_size


@dataclass(frozen=True, slots=True)
class AnswerPass:
    """One admission and one step."""

    read_tokens: int
    """Prompt tokens read before the step; 0: none."""
    read_rows: int
    read_squares: int
    rows: int
    """Answers that get one token more in the step."""
    places: int
    """Key-value places that the step's attention looks at."""


@dataclass(frozen=True)
class AnsweringPasses:
    """All passes of one call of an engine."""

    passes: tuple[AnswerPass, ...]
    scale: float
    """The call is so many times `passes`."""
    peak_places: int
    """Most key-value places held at once."""
    max_rows: int
    """Most answers under way at once."""

    @cached_property
    def num_reads(self) -> int:
        """Admissions."""
        return sum(each.read_tokens > 0 for each in self.passes)

    @cached_property
    def read(self) -> AnswerPass:
        """All admissions together."""
        counts = (sum(each.read_tokens for each in self.passes), sum(each.read_rows for each in self.passes))
        return AnswerPass(*counts, sum(each.read_squares for each in self.passes), 0, 0)

    @cached_property
    def steps(self) -> Counter[int]:
        """How many steps there are by their number of answers."""
        return Counter(each.rows for each in self.passes if each.rows)

    @cached_property
    def step_places(self) -> int:
        """Places of all steps together."""
        return sum(each.places for each in self.passes)


def answering_passes(
    prompts: Sequence[int], answers: Sequence[int], *, max_rows: int, prefill_tokens: int, paged: bool = False, most: int = 1024
) -> AnsweringPasses:
    """The packed engine's passes. `answers` counts new tokens, end tokens included, at least 1 each. `paged`: its keys are in pages. Above
    `most` prompts: a sample."""
    scale = 1.0
    if len(prompts) > most:
        chosen = [round(k * (len(prompts) - 1) / (most - 1)) for k in range(most)]
        scale = len(prompts) / most
        prompts, answers = [prompts[k] for k in chosen], [answers[k] for k in chosen]
    order = np.argsort(-np.asarray(prompts, np.int64), kind="stable")
    waiting = [(int(prompts[k]), int(answers[k])) for k in order]
    room = (lambda n: pages_for(n) * PAGE) if paged else capacity_for
    classes = np.asarray([room(n) for n in range(1, max((p + a for p, a in waiting), default=0) + 3)], np.int64)
    length, left = np.zeros(0, np.int64), np.zeros(0, np.int64)
    passes: list[AnswerPass] = []
    held = _Slabs() if paged else _Buckets()
    most_rows = at = 0
    while at < len(waiting) or len(length):
        free = waiting[at : at + max_rows - len(length)]
        pack = free[: pack_size((row[0] for row in free), len(waiting) - at, prefill_tokens, has_rows=len(length) > 0)]
        at += len(pack)
        new = np.asarray([row for row in pack if row[1] > 1], np.int64).reshape(-1, 2)
        if len(new) < len(pack):  # what ends with its first token had its place too
            held.hold(classes[np.concatenate([length, [row[0] for row in pack]])])
        length, left = np.concatenate([length, new[:, 0]]), np.concatenate([left, new[:, 1] - 1])
        places = classes[length]  # room for length + 1 tokens: `classes` starts at 1
        held.hold(places)
        most_rows = max(most_rows, len(length))
        read = [row[0] for row in pack]
        passes.append(AnswerPass(sum(read), len(read), sum(n * n for n in read), len(length), int(places.sum())))
        length, left = length + 1, left - 1
        length, left = length[left > 0], left[left > 0]
    return AnsweringPasses(tuple(passes), scale, held.peak, most_rows)


class _Slabs:
    """Places that have memory where rows have pages (`generation.kv`)."""

    def __init__(self) -> None:
        self.peak = 0

    def hold(self, places: np.ndarray) -> None:
        """Rows of a pass, by the places of each."""
        slab = PAGE * SLAB
        self.peak = max(self.peak, -(-int(places.sum()) // slab) * slab)


class _Buckets:
    """Places that have memory where rows lie in buckets (`generation.kv`).

    A bucket's slots get memory one by one as rows come, and keep it until it is empty; all of a class but the last are full. As rows
    move to another class, the last bucket that they leave is still there.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._slots: dict[int, int] = {}
        """With memory, by capacity."""

    def hold(self, places: np.ndarray) -> None:
        """Rows of a pass, by the places of each."""
        before, self._slots = self._slots, {}
        for capacity, count in zip(*(each.tolist() for each in np.unique(places, return_counts=True)), strict=True):
            self._slots[capacity] = max(count, min(before.get(capacity, 0), -(-count // ROWS) * ROWS))
        moving = before.keys() | self._slots.keys()
        most = sum(each * max(self._slots.get(each, 0), min(before.get(each, 0), ROWS)) for each in moving)
        self.peak = max(self.peak, most)


def batched_passes(prompts: Sequence[int], answers: Sequence[int], *, batch_size: int) -> AnsweringPasses:
    """Passes of an engine that answers fixed batches, padded to their longest prompt, until each one's longest answer ends."""
    passes: list[AnswerPass] = []
    peak = 0
    for start in range(0, len(prompts), batch_size):
        group = prompts[start : start + batch_size]
        longest, steps, rows = max(group), max(answers[start : start + batch_size]), len(group)
        passes.append(AnswerPass(rows * longest, rows, rows * longest * longest, 0, 0))
        passes += [AnswerPass(0, 0, 0, rows, rows * (longest + step)) for step in range(1, steps)]
        peak = max(peak, rows * (longest + steps))
    return AnsweringPasses(tuple(passes), 1.0, peak, min(batch_size, len(prompts)))
