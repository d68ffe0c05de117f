"""Logits -> the best spans of each window, for a whole batch at once. The only decoder: training, evaluation, command and server.

    found = decode(start_BL, end_BL, can_start_BL, can_end_BL, null_at_B, num_best=20, max_answer_tokens=30)

The score of a span is the sum of its first token's start logit and its last token's end logit. Exact: the N best of all spans of at most
K tokens, in the order (score down, start up, end up). The N best spans begin at the N starts whose own best span is best, so only N x K
of the L x K spans are ever compared. The least of these starts' own best scores is reached by at least N spans, and by few that are not
kept: only spans that reach it are put in order.

B: windows; L: tokens; N: spans kept; K: longest answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from campana.errors import ModelError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Whole = NDArray[np.int64]
LOWEST = np.float32(-np.inf)
_PLACES = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Decoded:
    """The best spans of B windows. Where a window has fewer than N spans, the rest has score -inf and positions -1."""

    score: Floats
    """(B, N)"""
    start: Whole
    end: Whole
    """(B, N): row positions, the end inclusive."""
    null: Floats
    """(B,): the score of no answer: start and end logit of the null token."""


def decode(
    start_BL: Floats, end_BL: Floats, can_start_BL: Bools, can_end_BL: Bools, null_at_B: Whole, *, num_best: int, max_answer_tokens: int
) -> Decoded:
    """The `num_best` best spans of each window. Raises ModelError for logits that are not finite where they count.

    `null_at_B`: each row's position of the null token.
    """
    row_B = np.arange(len(start_BL))
    null_B = start_BL[row_B, null_at_B] + end_BL[row_B, null_at_B]
    starts = np.where(can_start_BL, start_BL, LOWEST)
    finite = np.isfinite(start_BL).all() and np.isfinite(end_BL).all()
    if not finite and not _finite_where_it_counts(start_BL, can_start_BL, end_BL, can_end_BL, null_B):
        raise ModelError("the reader's logits are not finite (NaN or infinity)", hint="the weights are damaged, or training diverged")
    num_windows, length = start_BL.shape
    band = min(max_answer_tokens, length)
    padded = np.full((num_windows, length + band - 1), LOWEST)  # ends, and none beyond them
    np.copyto(padded[:, :length], end_BL, where=can_end_BL)
    order, least_B1 = _places_of_best(starts + _highest(padded, band), num_best)
    row_B1 = row_B[:, None]
    scores_BNK = _view(padded, (num_windows, length, band), (padded.shape[1], 1, 1))[row_B1, order]
    scores_BNK += starts[row_B1, order][:, :, None]
    score, place = _best_of_those_above(scores_BNK.reshape(num_windows, -1), least_B1, num_best)
    among, further = np.divmod(place, band)
    first = order[row_B1, among]
    last = first + further
    if (absent := score == LOWEST).any():
        first[absent] = last[absent] = -1
    if missing := num_best - score.shape[1]:
        score = np.pad(score, ((0, 0), (0, missing)), constant_values=LOWEST)
        first, last = (np.pad(places, ((0, 0), (0, missing)), constant_values=-1) for places in (first, last))
    return Decoded(score, first, last, null_B)


def _finite_where_it_counts(start_BL: Floats, can_start_BL: Bools, end_BL: Floats, can_end_BL: Bools, null_B: Floats) -> bool:
    """The same of logits of which some are not finite: those of places where no answer can be do not matter."""
    return all(np.isfinite(logits).all() for logits in (start_BL[can_start_BL], end_BL[can_end_BL], null_B))


def _highest(padded: Floats, width: int) -> Floats:
    """(B, L + width - 1) -> (B, L): the highest of each place and the `width` - 1 after it, by windows that double.

    All rows are gone through as one: the last places of a row see into the next one, and are those that are left out.
    """
    num_rows, padded_length = padded.shape
    covered, highest = 1, padded.reshape(-1)
    while covered < width:
        step = min(covered, width - covered)
        highest = np.maximum(highest[:-step], highest[step:])
        covered += step
    return _view(highest, (num_rows, padded_length - width + 1), (padded_length, 1))


def _view(numbers: Floats, shape: tuple[int, ...], steps: tuple[int, ...]) -> Floats:
    """What numpy's `as_strided` makes of an array without gaps, in a tenth of its time; ValueError beyond the array. `steps` in numbers."""
    return np.ndarray(shape, numbers.dtype, numbers, strides=[numbers.itemsize * step for step in steps])


def _places_of_best(scores: Floats, number: int) -> tuple[Whole, Floats]:
    """(B, M) -> the places of the `number` best of each row in ascending order, of equal ones the earlier; and the least of them, (B, 1).

    Where there are no more than `number`: all, and -inf, for there may be as many spans below them as above.
    """
    most = scores.shape[1]
    if number >= most:
        return np.broadcast_to(np.arange(most), scores.shape), np.full((len(scores), 1), LOWEST)
    least_B1 = np.partition(scores, most - number, axis=1)[:, most - number, None]
    found = np.flatnonzero(scores >= least_B1)
    if len(found) != len(scores) * number:  # more than that many in some row: equal ones
        found = np.flatnonzero(_earliest(scores, least_B1, number))
    return found.reshape(-1, number) - most * np.arange(len(scores))[:, None], least_B1


def _earliest(scores: Floats, least_B1: Floats, number: int) -> Bools:
    """(B, M): the `number` highest of each row, of those that are as low as the lowest of them the earliest places."""
    above, level = scores > least_B1, scores == least_B1
    room_B1 = number - np.count_nonzero(above, axis=1)[:, None]
    return above | (level & (np.cumsum(level, axis=1) <= room_B1))


def _best_of_those_above(scores: Floats, least_B1: Floats, number: int) -> tuple[Floats, Whole]:
    """(B, M) -> values and places, (B, min(number, M)) each: the highest first, of equal ones the earlier place first.

    `least_B1`: what at least `number` of each row reach, or all where there are no more; few reach it that are not wanted.
    All numbers together are fewer than 2^32: a key holds the place among all.
    """
    num_rows, most = scores.shape
    number = min(number, most)
    flat = scores.reshape(-1)
    found = np.flatnonzero(scores >= least_B1)
    edges = found.searchsorted(most * np.arange(num_rows + 1))  # of each row's part of `found`
    counts = np.diff(edges)
    width = int(counts.max(initial=number))
    keys = np.full((num_rows, width), np.iinfo(np.int64).min)
    bits = (flat[found] + np.float32(0)).view(np.int32)  # + 0: one zero, not two
    bits ^= (bits >> 31) & 0x7FFFFFFF  # whole numbers that sort as the floats do
    columns = np.arange(len(found)) + np.repeat(width * np.arange(num_rows) - edges[:-1], counts)
    keys.reshape(-1)[columns] = (bits.astype(np.int64) << 32) | (_PLACES - found)
    keys.sort(axis=1)
    best = _PLACES - (keys[:, : -number - 1 : -1] & _PLACES)
    return flat[best], best - most * np.arange(num_rows)[:, None]
