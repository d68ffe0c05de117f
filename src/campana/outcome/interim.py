"""Scores of the arms that are whole, while others are not: a failed arm does not hide those that ended. Nothing is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from campana.core.spec import Stage
from campana.outcome.shelf import Shelf
from campana.study import Study

if TYPE_CHECKING:
    from campana.core.store import Store


def interim_scores(study: Study, store: Store, shelf: Shelf) -> dict[str, Any]:
    """As `measure.json`'s "arms", of the arms whose checks are all built."""
    from campana.stats.measure import scores_of_arms

    spec: Any = study.measure.spec
    folders = {
        name.removeprefix("scores."): store.path(stage.key)
        for name, stage in study.measure.inputs.items()
        if isinstance(stage, Stage) and shelf.built(stage)
    }
    whole = {name: (dict(arm.levels), arm.inputs) for name, arm in spec.arms.items() if all(each in folders for each in arm.inputs)}
    wanted = {each for _, inputs in whole.values() for each in inputs}
    if not wanted:
        return {}
    scores = {name: folder for name, folder in folders.items() if name in wanted}
    return scores_of_arms(scores=scores, arms=whole, average=spec.average, confidence=spec.confidence)
