"""Several comparisons at once: p-values and intervals that hold for all of a family together.

Owns the adjustment, refuses to touch a p-value that stands alone. Intervals and verdicts must agree, and Holm's steps have no intervals,
so contrasts use the single-step minimum-p method (Westfall and Young 1993) with the correlation of their estimates on the same prompts:

    family = Family.of(p_values, correlation, confidence=0.95, seed=0)
    family.adjusted       # p-values
    family.confidence     # of each interval, so that all cover together with 0.95

`holm` is for p-values without a known correlation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from campana.stats.components import Floats

NUM_DRAWS = 100_000
"""Of the smallest p-value under no difference at all; the Monte Carlo error of a level of 0.05 is 0.0007."""
FEW = 200
"""With fewer draws below it than this, a p-value gets Bonferroni's bound instead of the simulated one."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p-values, in the order given."""
    count = len(p_values)
    order = sorted(range(count), key=lambda index: p_values[index])
    adjusted = [0.0] * count
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class Family:
    """Adjusted p-values, and the level of the intervals that belong to them."""

    adjusted: tuple[float, ...]
    confidence: float

    @classmethod
    def of(cls, p_values: Sequence[float], correlation_KK: Floats, confidence: float, seed: int) -> Family:
        """Adjust K p-values whose estimates have this correlation. Monotone: a smaller p-value never gets the larger adjusted one.

        A test is rejected (`adjusted <= 1 - confidence`) exactly where its interval at `self.confidence` leaves out 0.
        """
        count = len(p_values)
        if count < 2:
            return cls(tuple(p_values), confidence)
        alpha = 1.0 - confidence
        smallest = np.sort(_smallest_p(correlation_KK, seed))
        position = round(alpha * NUM_DRAWS)
        simulated = float(smallest[position - 1]) if position >= FEW else 0.0
        level = min(max(simulated, alpha / count), alpha)
        order = sorted(range(count), key=lambda index: p_values[index])
        adjusted = [0.0] * count
        highest = 0.0
        for index in order:
            p = p_values[index]
            below = int(np.searchsorted(smallest, p, side="right"))
            raw = min(count * p, below / NUM_DRAWS) if below >= FEW else count * p
            raw = min(max(raw, p), 1.0)
            # The level of the intervals decides: rounding and Monte Carlo error never make a p-value contradict its interval.
            raw = min(raw, alpha) if p <= level else max(raw, float(np.nextafter(alpha, 1.0)))
            highest = max(highest, raw)
            adjusted[index] = highest
        return cls(tuple(adjusted), 1.0 - level)


def _smallest_p(correlation_KK: Floats, seed: int) -> Floats:
    """Draws of the smallest of K two-sided p-values of normal estimates with this correlation and no differences."""
    values, vectors = np.linalg.eigh(correlation_KK)
    root_KK = vectors * np.sqrt(np.clip(values, 0.0, None))
    normal = np.random.default_rng(seed).standard_normal((NUM_DRAWS, len(correlation_KK)))
    largest = np.abs(normal @ root_KK.T).max(axis=1)
    return 2.0 * stats.norm.sf(largest)
