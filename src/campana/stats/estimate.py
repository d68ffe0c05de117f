"""Intervals for a mean score and for a paired difference of scores, over prompts and seeds at once.

Owns how a table of scores becomes a figure with an interval. Refuses to call a figure certain because its data happen not to vary.

    score_estimate(components(scores_SN, categories_N, "macro"), 0.95)        # Wilson-like, stays inside 0..1
    Difference.of(components(left_SN - right_SN, categories_N, "macro"), num_nonzero=57).estimate(0.95)

**Method.** The variance is `V_P + max(V_S - V_R, 0)`, with a little less of `V_R` taken off where seeds are few (see `components`). The
quantile is Student's t. With few seeds `V_S` is uncertain, and where it happens to be small the interval would be narrow *and*
Satterthwaite's (1946) degrees of freedom many; so the share of the seeds `r = V_S / V` enters them with a power below his 2:

    1 / df = (1 - r)**2 / df_P + r**0.8 / (S - 1)

The ends are the ordinary ones: `df_P` where seeds move nothing, `S - 1` where only seeds matter. The power was chosen by simulation.
Coverage of 95% intervals in the limit of many prompts, lowest and highest over all shares of seeds and residual:

    seeds   Satterthwaite, all of V_R off   this
    2       0.83 .. 0.96                    0.91 .. 0.98   (0.94 .. 0.98 while luck is at most half of the variance)
    3       0.88 .. 0.97                    0.94 .. 0.97
    5       0.92 .. 0.96                    0.95 .. 0.97

Where `V_S` falls below `V_R` by chance, luck enters neither variance nor degrees of freedom. Of 95% intervals that is outweighed; of
stricter ones, such as those of several comparisons, it is not: their errors would be two to five times as many as promised. So above
`TUNED_LEVEL` `r` always enters the degrees of freedom. Errors over those promised, at most, while luck is at most half of the variance:

    seeds   99%, only where V_S > V_R   99%    99.8%, only where V_S > V_R   99.8%
    2       2.6                         1.1    5.3                           1.6
    3       2.3                         1.0    4.9                           1.0
    5       1.6                         1.0    3.3                           1.0

Resampling instead: a bootstrap of prompts alone ignores luck, and a pigeonhole bootstrap (both sampled) knows too little of luck's
spread with so few seeds. `benchmarks/coverage.py` simulates all of them; docs/statistics.md has its table.

- A mean score near 0 or 1 has a skewed error: its interval is Wilson's, with the number of prompts that would give this variance
  (`mean (1 - mean) / variance`), as survey statistics does for proportions in complex samples (Franco, Little, Louis and Slud 2019).
- A difference of which few prompts tell (most answers equal) has an uncertain variance: it is taken as if one more prompt had differed,
  a milder and more general form of Bonett and Price's (2012) adjustment for paired proportions. Where all differ it is the t interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from campana.stats.components import Components

SEED_POWER = 0.8
TUNED_LEVEL = 0.95
"""See the module's docstring."""


@dataclass(frozen=True)
class Estimate:
    """A figure and what is known of it. Without any score all is None; with one prompt the interval is all that is possible."""

    mean: float | None
    low: float | None
    high: float | None
    standard_error: float | None
    degrees_of_freedom: float | None


NOTHING = Estimate(None, None, None, None, None)
"""Of no scores at all."""


def degrees_of_freedom(variance: float, prompts_df: float, seeds_and_residual: float, num_seeds: float) -> float:
    """Of a variance of which `seeds_and_residual` (`V_S`) was estimated from `num_seeds` seeds. See the module's docstring.

    `seeds_and_residual` is 0 where the seeds do not enter the variance.
    """
    if variance <= 0 or seeds_and_residual <= 0:
        return prompts_df
    share = min(seeds_and_residual / variance, 1.0)
    return 1.0 / ((1.0 - share) ** 2 / prompts_df + share**SEED_POWER / (num_seeds - 1.0))


def seeds_entering(parts: Components, confidence: float) -> float:
    """`V_S` where it enters the degrees of freedom of an interval of this level, else 0. See the module's docstring."""
    return (parts.seeds_and_residual or 0.0) if parts.seeds or confidence > TUNED_LEVEL else 0.0


def t_quantile(confidence: float, df: float) -> float:
    """The half-width, in standard errors, of a two-sided interval."""
    return float(stats.t.isf(0.5 - confidence / 2.0, df))


def score_estimate(parts: Components, confidence: float) -> Estimate:
    """A mean of scores in 0..1 with a Wilson interval (Wilson 1927) of its effective number of prompts and t's quantile.

    Where all scores are equal nothing tells how they would vary: the interval is then the one for right-or-wrong scores.
    """
    variance = parts.variance
    mean = min(max(parts.mean, 0.0), 1.0)
    if variance is None:
        return Estimate(mean, 0.0, 1.0, None, None)
    df = degrees_of_freedom(variance, parts.prompts_df, seeds_entering(parts, confidence), parts.num_seeds)
    spread = mean * (1.0 - mean)
    effective = spread / variance if variance > 0 and spread > 0 else parts.num_effective
    ratio = t_quantile(confidence, df) ** 2 / effective
    centre = (mean + ratio / 2) / (1 + ratio)
    half = math.sqrt(ratio * spread + ratio**2 / 4) / (1 + ratio)
    low = max(centre - half, 0.0) if mean > 0 else 0.0
    high = min(centre + half, 1.0) if mean < 1 else 1.0
    return Estimate(mean, low, high, math.sqrt(variance), df)


@dataclass(frozen=True)
class Difference:
    """A paired difference of scores in -1..1, ready for intervals at any level."""

    mean: float
    standard_error: float | None
    """From the components alone."""
    test_error: float | None
    """The one that intervals and p-values use: adjusted where few prompts differ. None: one prompt tells nothing."""
    df: float
    """Of intervals up to `TUNED_LEVEL`."""
    strict_df: float
    """Of those above."""

    @classmethod
    def of(cls, parts: Components, num_nonzero: int) -> Difference:
        """Of the components of a table of differences, in `num_nonzero` of whose prompts the sides differ (in the mean of the seeds)."""
        variance = parts.variance
        if variance is None or parts.prompts_and_residual is None:
            return cls(parts.mean, None, None, parts.prompts_df, parts.prompts_df)
        adjusted = adjusted_prompts(parts, num_nonzero) + (parts.seeds or 0.0)
        df, strict_df = (
            degrees_of_freedom(adjusted, parts.prompts_df, seeds_entering(parts, level), parts.num_seeds) for level in (TUNED_LEVEL, 1.0)
        )
        return cls(parts.mean, math.sqrt(variance), math.sqrt(adjusted), df, strict_df)

    @classmethod
    def of_itself(cls) -> Difference:
        """Of two sides that are the same answers: exactly 0."""
        return cls(0.0, 0.0, 0.0, math.inf, math.inf)

    def estimate(self, confidence: float) -> Estimate:
        """The interval `mean ± t * test_error`, cut at -1 and 1."""
        if self.test_error is None:
            return Estimate(self.mean, -1.0, 1.0, None, None)
        df = self.strict_df if confidence > TUNED_LEVEL else self.df
        half = t_quantile(confidence, df) * self.test_error if self.test_error else 0.0
        known = df if math.isfinite(df) else None
        return Estimate(self.mean, max(self.mean - half, -1.0), min(self.mean + half, 1.0), self.standard_error, known)

    def p_value(self) -> float | None:
        """Two-sided, of no difference: 1 - the confidence at which the interval touches 0. None where nothing can be said."""
        if self.test_error is None:
            return None
        if self.test_error == 0:
            return 1.0
        plain, strict = (float(2 * stats.t.sf(abs(self.mean) / self.test_error, df)) for df in (self.df, self.strict_df))
        return plain if plain > 1 - TUNED_LEVEL else min(max(plain, strict), 1 - TUNED_LEVEL)


def adjusted_prompts(parts: Components, num_nonzero: int, growth: float = 1.0) -> float:
    """`V_P` as if one more prompt had differed, so that few differing prompts (or none) are not taken for certainty.

    `growth` asks for the factor of the adjustment at that many times the prompts, for planning; `V_P` itself is not scaled by it.
    """
    count = parts.num_items * growth
    v_prompts = parts.prompts_and_residual or 0.0
    if v_prompts == 0:
        scale = parts.largest or 1.0
        return scale**2 / (parts.num_effective * growth + 1.0) / parts.num_effective
    differing = max(num_nonzero, 1) * growth
    return v_prompts * ((differing + 1.0) / differing) * (count / (count + 1.0))
