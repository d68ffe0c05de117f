"""Studies of readers: the recipe of an arm that reads, and its stages: model -> (spans) -> train -> answer -> check.

    base:
      model: minilm
      read: {train: squad, held_out: held_out, suite: half_a, spans: {steps: 600, lr: 3e-4}, steps: 600, lr: 1e-4}

Arms that share a first phase (`spans`) share its stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, model_validator

from campana.core.spec import Resources, Source, Stage
from campana.errors import StudyError
from campana.parts import nearest, part_of
from campana.reading.files import load_examples
from campana.reading.training.data import refuse_shared
from campana.reading.training.objective import Objective
from campana.reading.training.objectives.cross_entropy import CrossEntropy
from campana.stages.read_answer import ReadAnswer
from campana.stages.read_check import ReadCheck
from campana.stages.read_train import ReadTrain
from campana.study.section import Section
from campana.tuning.options import AdamW, FixedRate, Schedule

if TYPE_CHECKING:
    from campana.study.schema import StudyFile


class SpansRecipe(Section):
    """The first phase: where answers are, learnt from questions that have one."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    lr: float = Field(gt=0)
    """Peak learning rate."""


class ReadRecipe(Section):
    """How a reader is trained, and what it answers."""

    train: str
    """A name from `data`: questions on passages (SQuAD JSON, JSONL or Parquet)."""
    held_out: str
    """A name from `data`: questions on other documents, for the held-out loss and the threshold."""
    suite: str
    """A name from `suites`, of the format `reading`: questions on documents that are neither."""
    made: str | None = None
    """A name from `data`: counterparts made by `campana read edit` from the training questions; None: only those that people wrote."""
    made_as: Literal["contrast", "questions", "both"] = "both"
    """How made counterparts are used: contrasted with their question, trained on as plain questions, or both."""
    objective: Annotated[SerializeAsAny[Objective], part_of("objective")] = Field(default="cross_entropy", validate_default=True)
    """What is minimised: `cross_entropy`, `rdrop`, or `{kind: spancl, weight: 0.5, temperature: 0.1}`."""
    spans: SpansRecipe | None = None
    """A first phase that only learns spans; arms that agree in it share it. None: all is learnt at once."""
    questions: Literal["balanced", "all"] = "all"
    """What the second phase draws: as many questions with an answer as without one, or all as they come."""
    steps: int = Field(ge=1)
    """Optimiser steps of the second phase."""
    plain_steps: int = Field(default=0, ge=0)
    """How many of them minimise cross-entropy alone, before the objective begins: abstention first, then contrast."""
    lr: float = Field(gt=0)
    """Peak learning rate of the second phase."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Tokens of the questions that a step draws."""
    schedule: Schedule = Schedule()
    """How the learning rate goes, in each phase."""
    optimizer: AdamW = AdamW()
    """The optimiser."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of hidden states."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder, in training and in answering."""
    max_length: int = Field(default=384, ge=16)
    """Tokens of a window."""
    overlap: int = Field(default=128, ge=0)
    """Passage tokens that two neighbouring windows share."""
    max_answer_tokens: int = Field(default=30, ge=1)
    """The longest answer."""
    fit: Literal["temperature", "isotonic"] = "temperature"
    """How P(no answer) is fitted."""
    max_items: int | None = Field(default=None, ge=1)
    """Only so many questions of the suite, evenly over answerable and unanswerable ones; None: all."""
    num_evaluations: int = Field(default=2, ge=1)
    """How often the held-out loss is measured in a phase."""
    checkpoint_seconds: float = Field(default=120.0, ge=0)
    """Seconds between checkpoints (not in the key)."""

    @model_validator(mode="after")
    def _phases(self) -> ReadRecipe:
        if self.plain_steps > self.steps:
            raise ValueError(f"plain_steps ({self.plain_steps}) are a part of the steps ({self.steps}): give at most as many")
        return self


class ReadCheckRecipe(Section):
    """How answers are scored."""

    score: Literal["f1", "exact"] = "f1"
    """F1 of the words, or exact match; unanswerable questions are right where nothing is said."""


class ReaderRecipe(Section):
    """All that one arm of a study of readers does."""

    model: str
    """A name from `models`: an encoder, or a trained reader."""
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
        held-out questions and suite share a document.
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
        self._refuse_leaks(*(found[name] for name in ("train", "held_out", "suite")))
        return found

    def _refuse_leaks(self, train: Source, held_out: Source, suite: Source) -> None:
        files = (train, held_out, suite)
        known = tuple(source.identity for source in files)
        if known in self._apart:
            return
        learnt, kept, asked = (load_examples(source.path) for source in files)
        refuse_shared(learnt, kept, "both trained on and held out")
        refuse_shared(learnt, asked, "both trained on and in the suite")
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
                first = self._train(read, CrossEntropy(), read.spans.steps, read.spans.lr, seed, questions="answerable", fit="none")
                start = spans[seed] = Stage(first, {"start": model, **told}, self._heavy, f"spans {recipe.model} seed={seed}")
            second = self._train(
                read,
                read.objective,
                read.steps,
                read.lr,
                seed,
                questions=read.questions,
                plain_steps=read.plain_steps,
                made_as=read.made_as,
                fit=read.fit,
            )
            made = {"made": files["made"]} if "made" in files else {}
            train[seed] = Stage(second, {"start": start, **told, **made}, self._heavy, f"train {arm} seed={seed}")
            spec = ReadAnswer(max_items=read.max_items, precision=read.precision)
            answer[seed] = Stage(spec, {"reader": train[seed], "suite": files["suite"]}, self._heavy, f"read {arm} seed={seed}")
            scored = ReadCheck(score=recipe.check.score)
            check[seed] = Stage(scored, {"answers": answer[seed], "suite": files["suite"]}, Resources(), f"check {arm} seed={seed}")
        return spans, train, answer, check

    def _train(self, read: ReadRecipe, objective: Objective, steps: int, lr: float, seed: int, **changes: Any) -> ReadTrain:
        same: dict[str, Any] = {
            name: getattr(read, name)
            for name in (
                "batch_tokens",
                "schedule",
                "optimizer",
                "max_grad_norm",
                "dropout",
                "precision",
                "max_length",
                "overlap",
                "max_answer_tokens",
                "num_evaluations",
                "checkpoint_seconds",
            )
        }
        return ReadTrain(objective=objective, steps=steps, learning_rate=FixedRate(value=lr), seed=seed, **same, **changes)
