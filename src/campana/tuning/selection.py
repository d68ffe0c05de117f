"""Choose among learning-rate trials by held-out loss: what `stages.select` calls.

    select((1e-5, 3e-5), {"0": trial_dir, "1": other_dir}, out_dir)
    rate = read_selected(out_dir)

Writes `selected.json` (campana.selected/1). A trial that diverged is listed and never chosen. Refuses trials that did not measure a
held-out loss, that ran another number of steps than the others (budgets must be equal), or that all diverged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from campana.errors import StageFailed, StudyError

SCHEMA = "campana.selected/1"
TUNE_SCHEMA = "campana.tune/1"
TIE = 1e-9
"""Losses within this share of each other are equal: the smaller rate is chosen, as the milder change."""


def select(candidates: Sequence[float], trials: Mapping[str, Path], out_dir: Path) -> Mapping[str, Any]:
    """Choose the candidate with the lowest final held-out loss. `trials` are `tune` folders named 0, 1, ... as the candidates are.

    Returns the meter: the trials' tokens and FLOPs together, the price of the choice.
    """
    results = [_result(trials, index, rate) for index, rate in enumerate(candidates)]
    finished = [(rate, r) for rate, r in zip(candidates, results, strict=True) if r["diverged"] is None]
    if not finished:
        raise StageFailed(
            f"all {len(candidates)} learning rates diverged: {', '.join(f'{rate:g}' for rate in candidates)}",
            hint=f"search lower ones, such as {min(candidates) / 10:g} and {min(candidates) / 30:.2g}",
        )
    _check_equal_budgets(finished)
    losses = {rate: _loss(rate, r) for rate, r in finished}
    lowest = min(losses.values())
    chosen = min(rate for rate, loss in losses.items() if loss <= lowest + TIE * abs(lowest))
    selected = {
        "schema": SCHEMA,
        "chosen": chosen,
        "losses": [
            {"learning_rate": rate, "validation_loss": losses.get(rate), "initial_validation_loss": r["initial_validation_loss"]}
            for rate, r in zip(candidates, results, strict=True)
        ],
        "diverged": [
            {"learning_rate": rate, **r["diverged"]} for rate, r in zip(candidates, results, strict=True) if r["diverged"] is not None
        ],
        "at_edge": _at_edge(chosen, candidates, losses),
        "not_better": _not_better(chosen, dict(finished)[chosen], losses[chosen]),
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "selected.json").write_text(json.dumps(selected, indent=2) + "\n", encoding="utf-8")
    flops = [r["flops"] for r in results]
    return {
        "trials": len(results),
        "trial_tokens": sum(r["tokens"] for r in results),
        "trial_flops": None if None in flops else sum(flops),
        "warnings": [text for text in (selected["at_edge"], selected["not_better"]) if text],
    }


def read_selected(stage_dir: Path) -> float:
    """The learning rate that a `select` stage chose."""
    selected = json.loads((stage_dir / "selected.json").read_text(encoding="utf-8"))
    if selected.get("schema") != SCHEMA:
        raise StudyError(
            f"selected.json has schema {selected.get('schema')!r}, not {SCHEMA!r}", hint="was it written by another version of campana?"
        )
    return float(selected["chosen"])


def _result(trials: Mapping[str, Path], index: int, rate: float) -> dict[str, Any]:
    if str(index) not in trials:
        raise StudyError(f"no trial was given for learning rate {rate:g}", where=f"inputs.trial.{index}")
    result: dict[str, Any] = json.loads((trials[str(index)] / "tune.json").read_text(encoding="utf-8"))
    if result.get("schema") != TUNE_SCHEMA:
        raise StudyError(f"tune.json has schema {result.get('schema')!r}, not {TUNE_SCHEMA!r}", where=f"trial.{index}")
    if result["learning_rate"] != rate:
        raise StudyError(f"the trial ran at {result['learning_rate']:g}, the candidate is {rate:g}", where=f"trial.{index}")
    return result


def _check_equal_budgets(finished: Sequence[tuple[float, Mapping[str, Any]]]) -> None:
    budgets = {rate: (r["steps"], r["tokens"]) for rate, r in finished}
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{rate:g}: {steps} steps, {tokens} tokens" for rate, (steps, tokens) in budgets.items())
        raise StudyError(f"the trials had unequal budgets ({told})", hint="give all candidates of one search the same settings")


def _loss(rate: float, result: Mapping[str, Any]) -> float:
    loss = result["final_validation_loss"]
    if loss is None:
        raise StudyError(f"the trial at {rate:g} measured no held-out loss", hint="hold rows out: set validation of the data to 1 or more")
    return float(loss)


def _at_edge(chosen: float, candidates: Sequence[float], losses: Mapping[float, float]) -> str | None:
    """A warning where a better rate may lie outside of the grid. A diverged neighbour bounds the search as a worse one does."""
    if len(candidates) < 2:
        return None
    if chosen == min(candidates):
        return f"the lowest learning rate tried ({chosen:g}) was the best: lower ones may be better"
    if chosen == max(candidates) and chosen in losses:
        return f"the highest learning rate tried ({chosen:g}) was the best: higher ones may be better"
    return None


def _not_better(chosen: float, result: Mapping[str, Any], loss: float) -> str | None:
    before = result["initial_validation_loss"]
    if before is None or loss < before:
        return None
    return f"even the best learning rate ({chosen:g}) did not lower the held-out loss: {before:.4f} before, {loss:.4f} after"
