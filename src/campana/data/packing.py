"""The order in which rows are learned, and how they are put together: plain functions on lengths.

    steps = plan_steps(lengths, batch_tokens=8192, epochs=2.5, seed=0)   # rows of each optimiser step
    bins = pack(lengths[steps[0]], budget=2048)                          # micro batches of a step

The order depends on the seed and the number of rows alone, by a fixed integer hash: no library's random stream can change it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heapreplace

import numpy as np
import numpy.typing as npt

Lengths = Sequence[int] | npt.NDArray[np.integer]


def plan_steps(lengths: Lengths, batch_tokens: int, epochs: float, seed: int) -> list[list[int]]:
    """The rows of every optimiser step, in order: together at most `batch_tokens` tokens, and a longer row alone.

    Each epoch is a seeded shuffle of all rows; the last, if it is a part of one, takes the first rows of its shuffle, so that
    round(epochs * rows) rows are learned in all, at least one. A step never reaches into the next epoch.
    """
    if batch_tokens < 1 or not epochs > 0:
        raise ValueError(f"batch_tokens ({batch_tokens}) and epochs ({epochs}) must be positive")
    sizes = np.asarray(lengths, np.int64)
    left = max(1, round(epochs * len(sizes))) if len(sizes) else 0
    steps: list[list[int]] = []
    epoch = 0
    while left > 0:
        order = shuffled(len(sizes), seed, epoch)[:left]
        left -= len(order)
        steps += _filled(order, sizes, batch_tokens)
        epoch += 1
    return steps


def _filled(order: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], batch_tokens: int) -> list[list[int]]:
    ends = np.cumsum(sizes[order])
    rows: list[int] = order.tolist()
    steps: list[list[int]] = []
    start = 0
    while start < len(rows):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + batch_tokens, side="right")))
        steps.append(rows[start:end])
        start = end
    return steps


def shuffled(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The numbers 0..count-1 in the order of an epoch: sorted by splitmix64 of (seed, epoch, number)."""
    base = mix(mix(np.array([seed], np.int64).astype(np.uint64)) + np.uint64(epoch))
    return np.argsort(mix(base + np.arange(count, dtype=np.uint64)), kind="stable").astype(np.int64)


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hash 64-bit integers one to one: splitmix64 (Steele, Lea and Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def pack(lengths: Lengths, budget: int) -> list[list[int]]:
    """Bins of at most `budget` tokens, the fullest first; a longer row is a bin by itself.

    As many as best fit needs in decreasing order of length, at most 11/9 of the fewest possible, plus one (Johnson 1974); and as even as
    `spread` makes them, where that many then suffice: a small bin that is left over costs a pass as well, and the fullest one memory.
    """
    sizes = np.asarray(lengths, np.int64)
    order = np.argsort(-sizes, kind="stable")
    num_alone = int((sizes > budget).sum())
    alone, rest = [[row] for row in order[:num_alone].tolist()], order[num_alone:].tolist()
    plain = sizes.tolist()
    bins = _best_fit(rest, plain, budget)
    even = spread(rest, plain, len(bins))
    fits = all(sum(plain[row] for row in rows) <= budget for rows in even)
    return alone + (even if fits else sorted(bins, key=lambda rows: -sum(plain[row] for row in rows)))


def spread(order: Sequence[int], sizes: Sequence[int], num_bins: int) -> list[list[int]]:
    """Rows in this order, longest first, each to the bin with the fewest tokens (Graham 1969); the fullest bins first."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    filled = [(0, number) for number in range(num_bins)]
    for row in order:
        tokens, number = filled[0]
        bins[number].append(row)
        heapreplace(filled, (tokens + sizes[row], number))
    return [bins[number] for _, number in sorted(filled, key=lambda each: (-each[0], each[1]))]


def _best_fit(order: Sequence[int], sizes: Sequence[int], budget: int) -> list[list[int]]:
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []
    for row in order:
        place = bisect_left(free, (sizes[row], -1))
        if place < len(free):
            left, number = free.pop(place)
            bins[number].append(row)
        else:
            left, number = budget, len(bins)
            bins.append([row])
        if left > sizes[row]:
            insort(free, (left - sizes[row], number))
    return bins
