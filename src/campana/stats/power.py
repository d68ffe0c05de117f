"""How much more would resolve a comparison: prompts at the present seeds, or seeds at the present prompts.

Owns the projection, and refuses to name a number where none would do: the present estimate and variance components are taken to hold,
prompts grow in the present proportion of the categories, and the interval must then leave out 0 or fall within the margin.

    needed(parts, num_nonzero=57, confidence=0.95, margin=0.02)    # Needed(prompts=340, seeds=None)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from campana.stats.components import Components
from campana.stats.estimate import adjusted_prompts, degrees_of_freedom, seeds_entering, t_quantile

MOST_PROMPTS = 1_000_000
MOST_SEEDS = 1_000
"""More than these is no plan: None."""


@dataclass(frozen=True)
class Needed:
    """How many *more* would do, each alone; None where no number would."""

    prompts: int | None
    seeds: int | None


def half_width(parts: Components, num_nonzero: int, confidence: float, num_items: int, num_seeds: int) -> float:
    """Of the interval that `num_items` prompts and `num_seeds` seeds would give, in units of the score."""
    growth = num_items / parts.num_items
    fewer = parts.num_seeds / num_seeds
    plain = parts.prompts_and_residual or 0.0
    adjusted = adjusted_prompts(parts, num_nonzero, growth)
    factor = adjusted / plain if plain else 1.0
    residual = (parts.residual or 0.0) * fewer / growth
    from_prompts = adjusted / growth if not plain else factor * ((parts.prompts or 0.0) / growth + residual)
    from_seeds = (parts.seeds or 0.0) * fewer
    variance = from_prompts + from_seeds
    counted_twice = ((parts.seeds_and_residual or 0.0) - (parts.seeds or 0.0)) * fewer / growth
    entering = from_seeds + counted_twice if seeds_entering(parts, confidence) else 0.0
    df = degrees_of_freedom(variance, parts.prompts_df * growth, entering, num_seeds)
    return t_quantile(confidence, df) * math.sqrt(variance)


def needed(parts: Components, num_nonzero: int, confidence: float, margin: float) -> Needed:
    """The smallest numbers of additional prompts, or seeds, with which the interval would be better, worse or equivalent."""
    target = max(abs(parts.mean), margin - abs(parts.mean))
    if target <= 0 or parts.variance is None:
        return Needed(None, None)

    def with_prompts(count: int) -> bool:
        return half_width(parts, num_nonzero, confidence, count, parts.num_seeds) < target

    def with_seeds(count: int) -> bool:
        return half_width(parts, num_nonzero, confidence, parts.num_items, count) < target

    prompts = _smallest(with_prompts, parts.num_items, MOST_PROMPTS)
    seeds = _smallest(with_seeds, parts.num_seeds, MOST_SEEDS) if parts.num_seeds > 1 else None
    return Needed(prompts, seeds)


def _smallest(enough: Callable[[int], bool], present: int, most: int) -> int | None:
    """How many more than `present`, at least 1, are enough; `enough` is monotone."""
    low, high = present, present + most
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high - present
