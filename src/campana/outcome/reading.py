"""What readers scored at each threshold, of a study of readers: `reading.json` of every arm and seed, as the report shows it."""

from __future__ import annotations

from typing import Any

from campana.outcome.shelf import Shelf
from campana.stages.read_answer import ReadAnswer
from campana.study import Arm, Study


def reading_results(study: Study, shelf: Shelf) -> list[dict[str, Any]]:
    """One a built reader: {"arm", "seed", "key", "always_empty", "results"}; empty where no arm reads.

    `always_empty` is the EM of a reader that never answers, in percent.

    `results` is one a threshold: {"name", "threshold", "figures": {"f1": {"value", "low", "high"}, ...}}.
    """
    return [found for arm in study.arms for found in _of_arm(arm, shelf)]


def _of_arm(arm: Arm, shelf: Shelf) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for seed, stage in arm.stages.generate.items():
        told = shelf.json(stage, "reading.json") if isinstance(stage.spec, ReadAnswer) else None
        if told is None:
            continue
        results = [{"name": at["name"], "threshold": at["threshold"], "figures": told["intervals"][at["name"]]} for at in told["results"]]
        empty = told["results"][0]["scores"]["always_empty_exact"]
        found.append({"arm": arm.name, "seed": seed, "key": stage.key, "always_empty": empty, "results": results})
    return found
