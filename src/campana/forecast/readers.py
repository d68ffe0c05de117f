"""Predictions of a reader's stages, from finished ones of this machine alone: there is no probe for them.

    training(history, spec)           # Expected; all None where the store has none alike

Training is counted in tokens read: those that the steps draw, times the views that the objective reads of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from campana.core.spec import Expected
from campana.forecast.history import actual_of
from campana.parts import kind_of

if TYPE_CHECKING:
    from campana.core.manifest import Manifest
    from campana.core.spec import Stage
    from campana.forecast.history import History
    from campana.stages.read_answer import ReadAnswer
    from campana.stages.read_train import ReadTrain

VIEWS = {"cross_entropy": 1.0, "rdrop": 2.0}
"""Times that an objective reads what a step draws. Of others it depends on the data, and is known once one has run."""


def training(history: History, spec: ReadTrain) -> Expected:
    """Of a `read_train` stage."""
    alike = [one for one in history.finished("read_train") if one.recipe.get("precision") == spec.precision and one.meter.get("tokens")]
    objective = kind_of(type(spec.objective))
    same = [_views(one) for one in alike if one.recipe["objective"]["kind"] == objective and one.recipe["plain_steps"] == spec.plain_steps]
    views = statistics.median(same) if same else VIEWS.get(objective)
    if not alike or views is None:
        return Expected()
    each = statistics.median(one.seconds / one.meter["tokens"] for one in alike)
    seconds = each * spec.steps * spec.batch_tokens * views
    sized = [one for one in alike if one.recipe["batch_tokens"] == spec.batch_tokens and one.recipe["max_length"] == spec.max_length]
    return Expected(seconds, _highest(sized, "memory_bytes"), _highest(alike, "disk_bytes"))


def answering(history: History, stage: Stage, spec: ReadAnswer) -> Expected:
    """Of a `read_answer` stage: as the finished ones of the same questions."""
    suite: Any = stage.inputs["suite"]
    wanted = {"precision": spec.precision, "max_items": spec.max_items}
    alike = [
        one
        for one in history.finished("read_answer")
        if one.recipe["inputs"].get("suite") == suite.identity and all(one.recipe.get(name) == value for name, value in wanted.items())
    ]
    if not alike:
        return Expected()
    seconds = statistics.median(one.seconds for one in alike)
    return Expected(seconds, _highest(alike, "memory_bytes"), _highest(alike, "disk_bytes"))


def _views(manifest: Manifest) -> float:
    recipe = manifest.recipe
    return float(manifest.meter["tokens"] / (recipe["steps"] * recipe["batch_tokens"]))


def _highest(manifests: Sequence[Manifest], quantity: Any) -> int | None:
    found = [value for one in manifests if (value := actual_of(one, quantity)) is not None]
    return round(max(found)) if found else None
