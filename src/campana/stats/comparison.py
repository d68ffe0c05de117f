"""Comparisons of arms on the same prompts and matched seeds, and the family that they are tested in.

Owns a contrast's differences and what `measure.json` says of them. Refuses to compare over prompts that a side has no score for:
they are dropped for this contrast alone, and counted.

    comparison = Comparison.of(table, arms, ("method: lora - full", ("lora",), ("full",), True), "macro")
    compared([comparison], table, arms, average="macro", confidence=0.95, margin=0.02, seed=0)

Legend: S seeds, N prompts, C categories, K contrasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from campana.stats.components import Average, Components, Floats, components, weights_of
from campana.stats.contrast import sentence, side_name, verdict
from campana.stats.estimate import NOTHING, Difference, Estimate
from campana.stats.multiplicity import Family
from campana.stats.power import Needed, needed
from campana.stats.scores import ScoreTable

Arms = Mapping[str, tuple[Mapping[str, str], tuple[str, ...]]]
"""Arm -> its levels and its inputs, one a seed."""
ContrastOf = tuple[str, tuple[str, ...], tuple[str, ...], bool]
"""Name, left arms, right arms, primary."""


def draws(inputs: tuple[str, ...]) -> tuple[str, ...]:
    """The independent draws among an arm's inputs: one input repeated for all seeds is one."""
    return inputs if len(set(inputs)) > 1 else inputs[:1]


def parts_of(values_SN: Floats, table: ScoreTable, average: Average, code: int | None = None) -> Components | None:
    """The components over the prompts scored in every row, of one category or of all; None without any."""
    use = ~np.isnan(values_SN).any(axis=0)
    if code is not None:
        use &= table.codes == code
    return components(values_SN[:, use], table.codes[use], average) if use.any() else None


def variance_of(parts: Components | None, fixed: bool) -> dict[str, float | None]:
    """What the squared standard error is made of. One seed cannot tell seeds and residual from prompts: they are None."""
    if parts is None:
        return {"prompts": None, "seeds": None, "residual": None}
    unmoved = 0.0 if fixed else None
    alone = parts.num_seeds == 1
    return {"prompts": parts.prompts, "seeds": unmoved if alone else parts.seeds, "residual": unmoved if alone else parts.residual}


def figure(estimate: Estimate) -> dict[str, float | None]:
    """The JSON form of an estimate."""
    return asdict(estimate)


@dataclass(frozen=True)
class Pairs:
    """One contrast, pair by pair of its arms."""

    rows: list[dict[str, Any]]
    """{"left", "right", "levels" (those that both share), "difference"}."""
    p_same: float | None
    """Of the hypothesis that the difference is the same in all pairs; None where nothing tells."""


@dataclass(frozen=True)
class Comparison:
    """One contrast's differences."""

    name: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    primary: bool
    values: Floats
    """S x N: left minus right, the mean over the pairs of arms; NaN where an arm is unscored."""
    parts: Components | None
    """None where no prompt is scored on both sides."""
    num_nonzero: int
    """Prompts on which the sides differ."""
    difference: Difference | None
    itself: bool
    """Both sides are the same answers."""

    @classmethod
    def of(cls, table: ScoreTable, arms: Arms, contrast: ContrastOf, average: Average) -> Comparison:
        """The differences of one contrast. Where no arm moves with the seed, there is one row."""
        name, left, right, primary = contrast
        pairs = [(arms[one][1], arms[other][1]) for one, other in zip(left, right, strict=True)]
        moving = any(len(draws(inputs)) > 1 for pair in pairs for inputs in pair)
        if not moving:
            pairs = [(one[:1], other[:1]) for one, other in pairs]
        values_SN = np.mean([table.rows(one) - table.rows(other) for one, other in pairs], axis=0)
        itself = all(one == other for one, other in pairs)
        parts = parts_of(values_SN, table, average)
        num_nonzero = _num_nonzero(values_SN)
        difference = _difference(parts, num_nonzero, itself)
        return cls(name, left, right, primary, values_SN, parts, num_nonzero, difference, itself)

    def category(self, table: ScoreTable, code: int, confidence: float) -> dict[str, float | None]:
        """The difference within one category; its interval stands alone (no multiplicity control)."""
        parts = parts_of(self.values, table, "micro", code)
        difference = _difference(parts, _num_nonzero(self.values[:, table.codes == code]), self.itself)
        return figure(difference.estimate(confidence) if difference else NOTHING)

    def pairs(self, table: ScoreTable, arms: Arms, average: Average, confidence: float) -> Pairs | None:
        """The same comparison in each pair of arms alone, and whether it is the same in all. None where there is one pair.

        A mean over pairs hides what a level of another factor changes. Intervals stand alone (no multiplicity control). The p-value is of
        the hypothesis that all pairs differ by the same: the smallest over all couples of pairs, times their number (Bonferroni).
        """
        if len(self.left) == 1:
            return None
        each = [
            Comparison.of(table, arms, ("", (one,), (other,), False), average) for one, other in zip(self.left, self.right, strict=True)
        ]
        rows: list[dict[str, Any]] = []
        for pair in each:
            levels, others = arms[pair.left[0]][0], arms[pair.right[0]][0]
            shared = {factor: level for factor, level in levels.items() if others.get(factor) == level}
            estimate = pair.difference.estimate(confidence) if pair.difference else NOTHING
            rows.append({"left": pair.left[0], "right": pair.right[0], "levels": shared, "difference": figure(estimate)})
        p_values: list[float] = []
        for one, other in combinations(each, 2):
            values_SN = one.values - other.values
            difference = _difference(parts_of(values_SN, table, average), _num_nonzero(values_SN), one.itself and other.itself)
            p_value = difference.p_value() if difference else None
            if p_value is not None:
                p_values.append(p_value)
        return Pairs(rows, min(1.0, min(p_values) * len(p_values)) if p_values else None)


def _num_nonzero(values_SN: Floats) -> int:
    means_N = values_SN[:, ~np.isnan(values_SN).any(axis=0)].mean(axis=0)
    return int((np.abs(means_N) > 1e-9).sum())


def _difference(parts: Components | None, num_nonzero: int, itself: bool) -> Difference | None:
    if parts is None:
        return None
    return Difference.of_itself() if itself else Difference.of(parts, num_nonzero)


def compared(
    comparisons: Sequence[Comparison], table: ScoreTable, arms: Arms, *, average: Average, confidence: float, margin: float, seed: int
) -> list[dict[str, Any]]:
    """What `measure.json` holds under `contrasts`, in the order given. Primary contrasts are one family, all others the other."""
    levels = {name: level for name, (level, _) in arms.items()}
    adjusted: dict[int, tuple[float, float]] = {}
    for primary in (True, False):
        tested = [k for k, each in enumerate(comparisons) if each.primary == primary and each.difference and each.difference.test_error]
        p_values = [comparisons[k].difference.p_value() or 0.0 for k in tested]  # pyright: ignore[reportOptionalMemberAccess] -- tested have one
        correlation_KK = _correlation([comparisons[k] for k in tested], table, average)
        family = Family.of(p_values, correlation_KK, confidence, seed)
        adjusted |= {k: (p, family.confidence) for k, p in zip(tested, family.adjusted, strict=True)}
    results: list[dict[str, Any]] = []
    for k, each in enumerate(comparisons):
        p_value = each.difference.p_value() if each.difference else None
        p_adjusted, level = adjusted.get(k, (p_value, confidence))
        estimate = each.difference.estimate(level) if each.difference else NOTHING
        found = verdict(estimate, margin)
        more = Needed(None, None)
        if found == "not resolved" and each.parts:
            more = needed(each.parts, each.num_nonzero, level, margin)
        pairs = each.pairs(table, arms, average, confidence)
        left, right = side_name(each.left, each.right, levels), side_name(each.right, each.left, levels)
        label = f"{100 * confidence:g}%" + (" simultaneous" if level > confidence else "")
        results.append(
            {
                "name": each.name,
                "left": list(each.left),
                "right": list(each.right),
                "primary": each.primary,
                "num_items": each.parts.num_items if each.parts else 0,
                "num_dropped": len(table.items) - (each.parts.num_items if each.parts else 0),
                "difference": figure(estimate),
                "interval_confidence": level,
                "categories": {name: each.category(table, code, confidence) for code, name in enumerate(table.categories)},
                "pairs": pairs.rows if pairs else [],
                "p_same_in_all_pairs": pairs.p_same if pairs else None,
                "variance": variance_of(each.parts, len(each.values) < len(arms[each.left[0]][1])),
                "p_value": p_value,
                "p_adjusted": p_adjusted,
                "verdict": found,
                "needed": asdict(more),
                "sentence": sentence((left, right), estimate, label, found=found, more=more, margin=margin),
            }
        )
    return results


def _correlation(comparisons: Sequence[Comparison], table: ScoreTable, average: Average) -> Floats:
    """K x K: of the estimates, through the prompts they share. What seeds share is left out, which can only make the control stricter."""
    rows: list[Floats] = []
    for each in comparisons:
        use = ~np.isnan(each.values).any(axis=0)
        codes = np.unique(table.codes[use], return_inverse=True)[1]
        counts_C = np.bincount(codes).astype(np.float64)
        mean_N = each.values[:, use].mean(axis=0)
        centred_N = mean_N - (np.bincount(codes, mean_N) / counts_C)[codes]
        influence_N = np.zeros(len(table.items))
        influence_N[use] = centred_N * (weights_of(counts_C, average) / counts_C)[codes]
        error = each.difference.test_error if each.difference and each.difference.test_error else 1.0
        length = float(np.sqrt((influence_N**2).sum()))
        rows.append(influence_N / max(error, length))
    if not rows:
        return np.zeros((0, 0))
    scaled_KN = np.stack(rows)
    correlation_KK = scaled_KN @ scaled_KN.T
    np.fill_diagonal(correlation_KK, 1.0)
    return correlation_KK
