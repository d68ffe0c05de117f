"""What tuning left behind: learning rates and their trials, training curves, the summary of each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from campana.core.spec import Stage
from campana.outcome.shelf import Shelf
from campana.study import Arm

MOST_POINTS = 300
"""Of one curve in the report; a longer one is thinned evenly, first and last kept. `metrics.jsonl` has them all."""

SUMMARY = (
    "steps",
    "tokens",
    "supervised_tokens",
    "trainable_parameters",
    "flops",
    "initial_validation_loss",
    "final_validation_loss",
    "learning_rate",
    "warnings",
)
"""Fields of `tune.json` that do not depend on the machine."""


def learning_rate(arm: Arm, shelf: Shelf) -> dict[str, Any] | None:
    """{"value", "searched", "at_edge", "warnings", "candidates": [{"learning_rate", "validation_loss", "diverged", "key"}]};
    None for an untuned arm.

    `value` is None while the search is not done. `at_edge`: a better rate may lie outside of the grid.
    """
    if not arm.stages.tune:
        return None
    select = arm.stages.select
    if select is None:
        spec: Any = next(iter(arm.stages.tune.values())).spec
        return {"value": spec.learning_rate.value, "searched": False, "at_edge": False, "warnings": [], "candidates": []}
    chosen = shelf.json(select, "selected.json")
    rates: Sequence[float] = select.spec.candidates  # type: ignore[attr-defined]  # the spec of a `select` stage
    candidates: list[dict[str, Any]] = []
    for rate, trial in zip(rates, arm.stages.trials, strict=True):
        summary = shelf.json(trial, "tune.json") or {}
        found = {"validation_loss": summary.get("final_validation_loss"), "diverged": summary.get("diverged") is not None}
        candidates.append({"learning_rate": rate, **found, "key": trial.key})
    if chosen is None:
        return {"value": None, "searched": True, "at_edge": False, "warnings": [], "candidates": candidates}
    told = [text for text in (chosen["at_edge"], chosen["not_better"]) if text]
    return {
        "value": chosen["chosen"],
        "searched": True,
        "at_edge": chosen["at_edge"] is not None,
        "warnings": told,
        "candidates": candidates,
    }


def runs(arm: Arm, shelf: Shelf) -> list[dict[str, Any]]:
    """The summary of each built run: {"seed", "key", steps, tokens, ...}."""
    found: list[dict[str, Any]] = []
    for seed, stage in arm.stages.tune.items():
        summary = shelf.json(stage, "tune.json")
        if summary is not None:
            found.append({"seed": seed, "key": stage.key, **{name: summary.get(name) for name in SUMMARY}})
    return found


def curves(arm: Arm, shelf: Shelf) -> list[dict[str, Any]]:
    """One a built run: {"arm", "seed", "key", "num_steps", "train": {step, tokens, loss, lr}, "validation": {step, tokens, loss}}.

    Tokens are those seen so far.
    """
    return [curve for seed, stage in arm.stages.tune.items() if (curve := _curve(arm.name, seed, stage, shelf)) is not None]


def _curve(arm: str, seed: int, stage: Stage, shelf: Shelf) -> dict[str, Any] | None:
    if not shelf.built(stage):
        return None
    train: list[dict[str, Any]] = []
    held_out: list[dict[str, Any]] = []
    tokens = 0
    for row in shelf.lines(stage, "metrics.jsonl"):
        if "validation_loss" in row:
            held_out.append({"step": row["step"], "tokens": tokens, "loss": row["validation_loss"]})
        else:
            tokens += row["tokens"]
            train.append({**row, "tokens": tokens})
    kept = thinned(train)
    columns = {name: [row.get(name) for row in kept] for name in ("step", "tokens", "loss", "lr")}
    return {
        "arm": arm,
        "seed": seed,
        "key": stage.key,
        "num_steps": len(train),
        "train": columns,
        "validation": {name: [row[name] for row in held_out] for name in ("step", "tokens", "loss")},
    }


def thinned(rows: Sequence[Any], most: int = MOST_POINTS) -> list[Any]:
    """At most so many rows, evenly spaced, first and last kept."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (most - 1))] for index in range(most)]
