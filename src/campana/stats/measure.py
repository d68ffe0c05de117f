"""From stored scores to `measure.json` (campana.measure/1): every figure of a study with its interval, and every verdict.

Owns the file. Refuses inputs that cannot be lined up. The statistics are in `components`, `estimate`, `contrast`, `multiplicity` and
`power`; the reasons are in docs/statistics.md.

    measure(scores={"full/0": a, "lora/0": b}, arms={"full": ({"method": "full"}, ("full/0",)), ...},
            contrasts=[("method: lora - full", ("lora",), ("full",), True)], average="macro", confidence=0.95, margin=0.02, seed=0,
            out_dir=out)

Legend: S seeds, N prompts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from campana.errors import DataError
from campana.stats.comparison import Arms, Comparison, ContrastOf, compared, draws, figure, parts_of, variance_of
from campana.stats.components import Average, Components
from campana.stats.estimate import NOTHING, score_estimate
from campana.stats.scores import ScoreTable, read_scores

SCHEMA = "campana.measure/1"


def measure(
    *,
    scores: Mapping[str, Path],
    arms: Arms,
    contrasts: Sequence[ContrastOf],
    average: Average,
    confidence: float,
    margin: float,
    seed: int,
    out_dir: Path,
) -> Mapping[str, Any]:
    """Estimate arms and contrasts, and write `measure.json` into `out_dir`.

    `scores` maps an input's name to a folder with `scores.jsonl`. An arm is its levels and its inputs, one a seed; the same name throughout
    where the seed moves nothing. A contrast is a name, two equally long sides of matched arms, and whether it is primary. `seed` is that of
    the multiplicity draws. Returns the counts of what was measured. Raises DataError for scores or arms that cannot be lined up.
    """
    table = read_scores(scores)
    num_seeds = _checked(table, arms, contrasts)
    results = {name: _arm(table, levels, inputs, average, confidence) for name, (levels, inputs) in arms.items()}
    comparisons = [Comparison.of(table, arms, contrast, average) for contrast in contrasts]
    found = compared(comparisons, table, arms, average=average, confidence=confidence, margin=margin, seed=seed)
    content = {
        "schema": SCHEMA,
        "average": average,
        "confidence": confidence,
        "margin": margin,
        "num_items": len(table.items),
        "num_seeds": num_seeds,
        "categories": [{"name": name, "num_items": int((table.codes == code).sum())} for code, name in enumerate(table.categories)],
        "arms": results,
        "contrasts": found,
        "notes": _notes(num_seeds, results, found),
    }
    text = json.dumps(_rounded(content), ensure_ascii=False, indent=1, allow_nan=False)
    (out_dir / "measure.json").write_text(text + "\n", encoding="utf-8")
    return {"num_items": len(table.items), "num_arms": len(arms), "num_contrasts": len(contrasts)}


def scores_of_arms(*, scores: Mapping[str, Path], arms: Arms, average: Average, confidence: float) -> dict[str, Any]:
    """What `measure` finds of arms alone, in its words."""
    table = read_scores(scores)
    _checked(table, arms, ())
    return _rounded({name: _arm(table, levels, inputs, average, confidence) for name, (levels, inputs) in arms.items()})


def _checked(table: ScoreTable, arms: Arms, contrasts: Sequence[ContrastOf]) -> int:
    """The number of seeds; arms and contrasts that cannot be lined up are errors."""
    for name, (_, inputs) in arms.items():
        missing = [each for each in inputs if each not in table.values]
        if missing or not inputs:
            raise DataError(f"no scores named {missing[0]!r}" if missing else "an arm without inputs", where=f"arms.{name}")
        if 1 < len(set(inputs)) < len(inputs):
            raise DataError(
                "some seeds share their scores and others do not", where=f"arms.{name}", hint="name one input a seed, or one for all"
            )
    counts = {len(inputs) for _, inputs in arms.values()}
    if len(counts) > 1:
        raise DataError(
            f"arms have different numbers of seeds: {sorted(counts)}", hint="repeat the input's name where the seed moves nothing"
        )
    for name, left, right, _ in contrasts:
        unknown = [arm for arm in (*left, *right) if arm not in arms]
        if unknown:
            raise DataError(f"no arm {unknown[0]!r}; known: {', '.join(arms)}", where=f"contrasts.{name}")
        if not left or len(left) != len(right):
            raise DataError(f"sides of {len(left)} and {len(right)} arms cannot be matched one to one", where=f"contrasts.{name}")
    return counts.pop() if counts else 0


def _arm(table: ScoreTable, levels: Mapping[str, str], inputs: tuple[str, ...], average: Average, confidence: float) -> dict[str, Any]:
    drawn = draws(inputs)
    values_SN = table.rows(drawn)
    unscored_N = np.isnan(values_SN).any(axis=0)
    reasons: dict[str, int] = {}
    for name in drawn:
        for reason, count in table.reasons[name].items():
            reasons[reason] = reasons.get(reason, 0) + count
    every: dict[Average, Components | None] = {kind: parts_of(values_SN, table, kind) for kind in ("micro", "macro")}
    whole = every[average]
    figures = {kind: figure(score_estimate(parts, confidence) if parts else NOTHING) for kind, parts in every.items()}
    categories: dict[str, Any] = {}
    for code, name in enumerate(table.categories):
        parts = parts_of(values_SN, table, "micro", code)
        here = table.codes == code
        categories[name] = {
            **figure(score_estimate(parts, confidence) if parts else NOTHING),
            "num_items": int((here & ~unscored_N).sum()),
            "num_unscored": int((here & unscored_N).sum()),
        }
    per_seed = list(whole.per_seed) if whole else [None] * len(drawn)
    fixed = len(drawn) < len(inputs)
    return {
        "levels": dict(levels),
        **figures,
        "score": figures[average],
        "categories": categories,
        "per_seed": per_seed * len(inputs) if fixed else per_seed,
        "num_unscored": int(unscored_N.sum()),
        "unscored_reasons": dict(sorted(reasons.items())),
        "variance": variance_of(whole, fixed),
    }


def _notes(num_seeds: int, arms: Mapping[str, Any], contrasts: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know beside the figures."""
    notes: list[str] = []
    if num_seeds == 1:
        notes.append("one seed only: the intervals cover the choice of prompts, not the luck of training")
    figures = [(name, arm["variance"]) for name, arm in arms.items()] + [(each["name"], each["variance"]) for each in contrasts]
    ruled = [name for name, variance in figures if _luck_rules(variance)]
    if num_seeds == 2 and ruled:
        notes.append(
            "two seeds only, and the seeds move the score more than the prompts do: intervals of 95% then cover 91 to 94%, and those of "
            f"several comparisons less than they say; a third seed mends most of it ({', '.join(ruled)})"
        )
    for name, arm in arms.items():
        if arm["num_unscored"]:
            notes.append(f"{name}: left out of its means for want of a score with some seed: {_prompts(arm['num_unscored'])}")
        empty = [category for category, found in arm["categories"].items() if not found["num_items"]]
        if empty:
            notes.append(f"{name}: no scored prompt in {', '.join(empty)}; its means are over the other categories")
    notes += [
        f"{each['name']}: compared on {_prompts(each['num_items'])}; left out for want of a score on a side: {each['num_dropped']:,}"
        for each in contrasts
        if each["num_dropped"]
    ]
    level = next((each["interval_confidence"] for each in contrasts if not each["primary"] and each["p_value"] is not None), None)
    if level is not None and sum(not each["primary"] for each in contrasts) > 1:
        notes.append(
            f"the contrasts that are not primary share one error rate: their intervals hold together, each at {100 * level:.2f}%; "
            "intervals of single categories are not adjusted"
        )
    return notes


def _prompts(count: int) -> str:
    return f"{count:,} prompt{'' if count == 1 else 's'}"


def _luck_rules(variance: Mapping[str, float | None]) -> bool:
    seeds, prompts, residual = variance["seeds"], variance["prompts"], variance["residual"]
    return seeds is not None and prompts is not None and residual is not None and seeds > prompts + residual


def _rounded(value: Any) -> Any:
    """Floats to ten significant digits, so that the last bits of another machine's arithmetic do not show."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.10g}") + 0.0 if math.isfinite(value) else None
    return value
