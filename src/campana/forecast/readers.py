"""Predictions of a reader's stages: from what they read and a profile of this machine, else from finished stages alone.

    training(known, calibration, history, stage, spec)       # Expected; None where nothing is known

Training and answering are counted in tokens read: those of all rows that the steps draw or an objective adds, without their padding.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from campana.core.spec import Expected
from campana.forecast.history import actual_of
from campana.forecast.known import input_stage, read_answer_profile_name, read_train_profile_name, reading_fact, suite_fact
from campana.parts import kind_of
from campana.stages.read_answer import ReadAnswer
from campana.stages.read_train import ReadTrain

if TYPE_CHECKING:
    from campana.core.manifest import Manifest
    from campana.core.spec import Stage
    from campana.forecast.calibration import Calibration
    from campana.forecast.history import History
    from campana.forecast.known import Known

VIEWS = {"cross_entropy": 1.0, "rdrop": 2.0}
"""Times that an objective reads what a step draws. Of others it depends on the data, and is known once one has run."""
STEP_BYTES, SCORE_BYTES = 200, 250
"""Of a step's row of figures, and of a question's row of scores."""
CHECK_SECONDS, CHECK_QUESTION_SECONDS = 0.2, 1e-4
"""Scoring answers, on two cores of Zen 5; no model works in it."""


@dataclass(frozen=True)
class ReaderNeeds:
    """What a probe has to find out of readers, each with a stage that shows it."""

    work: Mapping[str, Stage]
    """Facts of `read_train` and `read_answer` stages that are not known."""
    train: tuple[Stage, ...]
    """`read_train` stages, one a profile that is missing."""
    answer: tuple[Stage, ...]
    """`read_answer` stages, one a profile that is missing."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All of them."""
        return (*self.work.values(), *self.train, *self.answer)


def missing(stages: Iterable[Stage], known: Known, calibration: Calibration) -> ReaderNeeds:
    """What the predictions of a reader's stages lack."""
    work: dict[str, Stage] = {}
    timed: dict[str, dict[str, Stage]] = {"read_train": {}, "read_answer": {}}
    for stage in stages:
        if isinstance(stage.spec, ReadTrain):
            kind, fact, profile = "read_train", reading_fact(stage), read_train_profile_name(stage)
        elif isinstance(stage.spec, ReadAnswer):
            kind, fact, profile = "read_answer", suite_fact(stage), read_answer_profile_name(stage)
        else:
            continue
        if known.facts.get(fact) is None:
            work.setdefault(fact, stage)
        if not calibration.is_settled(kind, profile):
            timed[kind].setdefault(profile, stage)
    return ReaderNeeds(work, tuple(timed["read_train"].values()), tuple(timed["read_answer"].values()))


def training(known: Known, calibration: Calibration, history: History, stage: Stage, spec: ReadTrain) -> Expected:
    """Of a `read_train` stage."""
    work, profile = known.facts.get(reading_fact(stage)), calibration.read_train.get(read_train_profile_name(stage))
    if work is None or profile is None:
        return _training_by_history(history, spec)
    seconds = profile.seconds(work, spec.num_evaluations, fit=spec.fit != "none")
    return history.corrected("read_train", seconds, profile.memory_bytes(work), profile.model_bytes + STEP_BYTES * spec.steps)


def answering(known: Known, calibration: Calibration, history: History, stage: Stage, spec: ReadAnswer) -> Expected:
    """Of a `read_answer` stage."""
    work, profile = known.facts.get(suite_fact(stage)), calibration.read_answer.get(read_answer_profile_name(stage))
    if work is None or profile is None:
        return _answering_by_history(history, stage, spec)
    disk = round(work["questions"] * profile.question_bytes)
    return history.corrected("read_answer", profile.seconds(work), profile.memory_bytes(work), disk)


def checking(known: Known, history: History, stage: Stage) -> Expected:
    """Of a `read_check` stage."""
    answers = input_stage(stage, "answers")
    work = None if answers is None else known.facts.get(suite_fact(answers))
    if work is None:
        return Expected(seconds=history.seconds("read_check"))
    return Expected(CHECK_SECONDS + CHECK_QUESTION_SECONDS * work["questions"], None, SCORE_BYTES * work["questions"])


def _training_by_history(history: History, spec: ReadTrain) -> Expected:
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


def _answering_by_history(history: History, stage: Stage, spec: ReadAnswer) -> Expected:
    """As the finished ones of the same questions."""
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
