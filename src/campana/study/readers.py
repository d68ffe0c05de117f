"""Studies of readers: the recipe of an arm that reads, and its stages: model -> (spans) -> train -> answer -> check.

    base:
      model: minilm
      read: {train: squad, held_out: held_out, suite: half_a, spans: {steps: 600, lr: 3e-4}, steps: 600, lr: 1e-4}

Arms that share a first phase (`spans`) share its stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from campana.core.spec import Resources, Source, Stage
from campana.errors import StudyError
from campana.parts import nearest
from campana.reading.files import load_examples
from campana.reading.threshold import refuse_one_kind
from campana.reading.training.data import refuse_shared
from campana.reading.training.fields import TrainingFields
from campana.reading.training.objectives.cross_entropy import CrossEntropy
from campana.stages.read_answer import ReadAnswer
from campana.stages.read_check import ReadCheck
from campana.stages.read_train import ReadTrain
from campana.study.section import Section
from campana.tuning.options import FixedRate

if TYPE_CHECKING:
    from campana.study.schema import StudyFile


class SpansRecipe(Section):
    """The first phase: where answers are, learnt from questions that have one."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    lr: float = Field(gt=0)
    """Peak learning rate."""


class ReadRecipe(TrainingFields, Section):
    """How a reader is trained, and what it answers."""

    train: str
    """A name from `data`: questions on passages (SQuAD JSON, JSONL or Parquet)."""
    held_out: str
    """A name from `data`: questions on other documents, for the held-out loss and the threshold."""
    suite: str
    """A name from `suites`, of the format `reading`: questions on documents that are neither."""
    made: str | None = None
    """A name from `data`: counterparts made by `campana read edit` from the training questions; None: only those that people wrote."""
    spans: SpansRecipe | None = None
    """A first phase that only learns spans; arms that agree in it share it. None: all is learnt at once."""
    questions: Literal["balanced", "all"] = "all"
    """What the second phase draws: as many questions with an answer as without one, or all as they come."""
    lr: float = Field(gt=0)
    """Peak learning rate of the second phase."""
    fit: Literal["temperature", "isotonic"] = "temperature"
    """How P(no answer) is fitted."""
    max_items: int | None = Field(default=None, ge=1)
    """Only so many questions of the suite, evenly over answerable and unanswerable ones; None: all."""


class ReadCheckRecipe(Section):
    """How answers are scored."""

    score: Literal["f1", "exact"] = "f1"
    """F1 of the words, or exact match; unanswerable questions are right where nothing is said."""


class ReaderRecipe(Section):
    """All that one arm of a study of readers does."""

    model: str
    """A name from `models`: an encoder, a language model, or a trained reader."""
    read: ReadRecipe
    """How it learns to read, and what it answers."""
    check: ReadCheckRecipe = ReadCheckRecipe()
    """How its answers are scored."""

    def measured_alike(self) -> dict[str, str]:
        """What all arms must agree in to be compared item by item."""
        return {"read.suite": self.read.suite, "read.max_items": str(self.read.max_items or "all"), "check.score": self.check.score}


class ReaderWiring:
    """Builds the stages of arms that read."""

    def __init__(self, file: StudyFile, sources: Callable[[str, str], Source], heavy: Resources) -> None:
        self._file, self._sources, self._heavy = file, sources, heavy
        self._apart: set[tuple[str, ...]] = set()

    def inputs(self, recipe: ReaderRecipe) -> dict[str, Source]:
        """The files that an arm names, by the input's name. StudyError where a name is not known; DataError where training questions,
        held-out questions and suite share a document, or a threshold cannot be fitted on the held-out questions.
        """
        read, data, suites = recipe.read, self._file.data, self._file.suites
        found: dict[str, Source] = {}
        for name, wanted in {"train": read.train, "held_out": read.held_out, "made": read.made}.items():
            if wanted is None:
                continue
            if wanted not in data:
                raise StudyError(f"unknown data set {wanted!r}", where=f"read.{name}", hint=nearest(wanted, list(data)))
            found[name] = self._sources(data[wanted].path, f"data.{wanted}.path")
        if read.suite not in suites:
            raise StudyError(f"unknown suite {read.suite!r}", where="read.suite", hint=nearest(read.suite, list(suites)))
        if suites[read.suite].format != "reading":
            raise StudyError(
                "readers answer questions on passages", where=f"suites.{read.suite}.format", hint=f"{read.suite}: {{format: reading}}"
            )
        found["suite"] = self._sources(suites[read.suite].path, f"suites.{read.suite}.path")
        self._refuse_unfit(*(found[name] for name in ("train", "held_out", "suite")))
        return found

    def _refuse_unfit(self, train: Source, held_out: Source, suite: Source) -> None:
        files = (train, held_out, suite)
        known = tuple(source.identity for source in files)
        if known in self._apart:
            return
        learnt, kept, asked = (load_examples(source.path) for source in files)
        refuse_shared(learnt, kept, "both trained on and held out")
        refuse_shared(learnt, asked, "both trained on and in the suite")
        refuse_one_kind(kept)
        refuse_shared(kept, asked, "both held out for the threshold and in the suite")
        self._apart.add(known)

    def stages(
        self, arm: str, recipe: ReaderRecipe, model: Stage, files: Mapping[str, Source]
    ) -> tuple[dict[int, Stage], dict[int, Stage], dict[int, Stage], dict[int, Stage]]:
        """By seed: the first phase (empty where there is none), training, answering, checking."""
        read = recipe.read
        spans: dict[int, Stage] = {}
        train: dict[int, Stage] = {}
        answer: dict[int, Stage] = {}
        check: dict[int, Stage] = {}
        told = {name: files[name] for name in ("train", "held_out")}
        for seed in self._file.seeds:
            start = model
            if read.spans is not None:
                start = spans[seed] = Stage(
                    self._spans(read, read.spans, seed), {"start": model, **told}, self._heavy, f"spans {recipe.model} seed={seed}"
                )
            second = self._train(read, read.lr, seed, questions=read.questions, fit=read.fit)
            made = {"made": files["made"]} if "made" in files else {}
            train[seed] = Stage(second, {"start": start, **told, **made}, self._heavy, f"train {arm} seed={seed}")
            spec = ReadAnswer(max_items=read.max_items, precision=read.precision)
            answer[seed] = Stage(spec, {"reader": train[seed], "suite": files["suite"]}, self._heavy, f"read {arm} seed={seed}")
            scored = ReadCheck(score=recipe.check.score)
            check[seed] = Stage(scored, {"answers": answer[seed], "suite": files["suite"]}, Resources(), f"check {arm} seed={seed}")
        return spans, train, answer, check

    def _spans(self, read: ReadRecipe, spans: SpansRecipe, seed: int) -> ReadTrain:
        """The first phase. Fields that move nothing in it have their defaults, so that arms which differ in them share it."""
        own = {"objective": CrossEntropy(), "made_as": "both", "plain_steps": 0, "steps": spans.steps}
        return self._train(read, spans.lr, seed, questions="answerable", fit="none", **own)

    def _train(self, read: ReadRecipe, lr: float, seed: int, **changes: Any) -> ReadTrain:
        same = {name: getattr(read, name) for name in TrainingFields.model_fields}
        return ReadTrain.model_validate({**same, "learning_rate": FixedRate(value=lr), "seed": seed, **changes})
