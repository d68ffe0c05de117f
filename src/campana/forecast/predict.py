"""Predictions: what each missing stage will take, before anything runs.

    forecasts = predict(stages, store, cache_dir)     # key -> Expected; a figure that cannot be known is None
    needs = missing_knowledge(stages, store, cache_dir)
    if needs: ...                                     # `forecast.probe` can find it out

It owns which figures a kind of stage is predicted from. It loads no torch, runs nothing, and writes only to the cache.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from campana.core.spec import Expected, Stage
from campana.core.store import Store
from campana.errors import CampanaError
from campana.forecast import readers
from campana.forecast.answers import AnsweringPasses, answering_passes, batched_passes
from campana.forecast.calibration import Calibration, Facts, fingerprint
from campana.forecast.history import History
from campana.forecast.known import (
    Known,
    Turns,
    answer_profile_name,
    answers_name,
    family,
    input_stage,
    model_fact,
    packs_are_several,
    prompts_fact,
    rows_fact,
    tune_profile_name,
)
from campana.forecast.packs import MOST_STEPS, TrainingPasses, training_passes
from campana.forecast.profile import forward_pack_flops, pack_flops, stored_bytes
from campana.forecast.readers import ReaderNeeds
from campana.generation.engine import Engine
from campana.generation.engines.packed import Packed
from campana.models.cost import BYTES, generation_flops, num_trainable
from campana.models.shape import Shape, num_parameters
from campana.parts import kind_of
from campana.stages.check import CheckStage
from campana.stages.generate import Generate
from campana.stages.measure import Measure
from campana.stages.model import Model
from campana.stages.prepare import Prepare
from campana.stages.read_answer import ReadAnswer
from campana.stages.read_check import ReadCheck
from campana.stages.read_train import ReadTrain
from campana.stages.select import Select
from campana.stages.tune import Tune
from campana.tuning.checkpoint import KEPT

STEPS_OF_A_PLAN = 10_000
"""Optimiser steps that one plan packs at most, so that a plan of 10,000 stages stays quick."""
LARGE_PLAN, ALIKE = 200, 0.05
"""From so many tuning stages on, answers whose mean length differs by less than 5% share one schedule."""
SMALL_SECONDS = {"check": 0.2, "select": 0.02, "measure": 0.6}
"""Stages that no model works in, on two Zen 3 cores, where this store has none of the kind yet; `check` also takes ..."""
CHECK_ITEM_SECONDS = 0.003
"""... so long an item."""
TOKEN_BYTES, ITEM_BYTES, SMALL_BYTES = 4, 150, 2_000
"""Of an answer's token, of a row of answers or scores, and of a stage that leaves only figures."""


class Forecaster:
    """Predicts the stages of one plan; what they share is worked out once."""

    def __init__(self, store: Store, cache_dir: Path, num_tuned: int = 1) -> None:
        self.known = Known(store, Facts(cache_dir))
        self.calibration = Calibration.load(cache_dir)
        self.history = History(store, self.known.index, self.calibration.name)
        self.most_steps = max(2, min(MOST_STEPS, STEPS_OF_A_PLAN // max(1, num_tuned)))
        self.is_large = num_tuned >= LARGE_PLAN
        self._training: dict[Any, TrainingPasses] = {}
        self._answering: dict[Any, list[AnsweringPasses]] = {}
        self._by_kind: dict[type[Any], Callable[[Stage, Any], Expected]] = {
            Model: self._model,
            Prepare: self._prepare,
            Tune: self._tune,
            Generate: self._generate,
            CheckStage: self._check,
            Select: self._small,
            Measure: self._small,
            ReadTrain: lambda stage, spec: readers.training(self.known, self.calibration, self.history, stage, spec),
            ReadAnswer: lambda stage, spec: readers.answering(self.known, self.calibration, self.history, stage, spec),
            ReadCheck: lambda stage, _: readers.checking(self.known, self.history, stage),
        }

    def of(self, stage: Stage) -> Expected:
        """What a stage will take."""
        predict_kind = self._by_kind.get(type(stage.spec))
        told = (
            Expected(seconds=self.history.seconds(kind_of(type(stage.spec)))) if predict_kind is None else predict_kind(stage, stage.spec)
        )
        return replace(told, calibration=self.calibration.name)

    # Kinds

    def _model(self, stage: Stage, _: Model) -> Expected:
        shape, tokenizer = self.known.shape(stage), self.known.tokenizer_bytes(stage)
        fact = self.known.facts.get(model_fact(stage)) or {}
        disk = None if shape is None or tokenizer is None else stored_bytes(shape, None, tokenizer)
        return Expected(fact.get("seconds", self.history.seconds("model")), fact.get("peak_memory_bytes"), disk)

    def _prepare(self, stage: Stage, _: Prepare) -> Expected:
        fact = self.known.facts.get(rows_fact(stage)) or {}
        return Expected(fact.get("seconds", self.history.seconds("prepare")), fact.get("peak_memory_bytes"), fact.get("disk_bytes"))

    def _small(self, stage: Stage, _: Any) -> Expected:
        kind = kind_of(type(stage.spec))
        return Expected(self.history.seconds(kind) or SMALL_SECONDS[kind], None, SMALL_BYTES)

    def _check(self, stage: Stage, _: CheckStage) -> Expected:
        answers = input_stage(stage, "answers")
        prompts = None if answers is None else self.known.prompts(answers)
        if prompts is None:
            return Expected(self.history.seconds("check"))
        return Expected(SMALL_SECONDS["check"] + CHECK_ITEM_SECONDS * len(prompts), None, ITEM_BYTES * len(prompts))

    def _tune(self, stage: Stage, spec: Tune) -> Expected:
        model = stage.inputs["model"]
        shape = self.known.shape(model) if isinstance(model, Stage) else None
        if shape is None or not isinstance(model, Stage):
            return Expected()
        if stage.resources.ranks > 1:
            return Expected()  # the probe and the cost model are of one process
        method: Any = spec.method
        tokenizer = self.known.tokenizer_bytes(model)
        disk = SMALL_BYTES if not spec.export else None if tokenizer is None else stored_bytes(shape, method, tokenizer) + SMALL_BYTES
        profile = self.calibration.tune.get(tune_profile_name(shape, spec))
        passes = self.training(stage, alone=profile is not None and profile.alone)
        if passes is None:
            return Expected(disk_bytes=disk)
        if profile is None:
            return replace(self._tune_by_history(spec, shape, passes, model.key), disk_bytes=disk)
        seconds = profile.seconds(passes, shape, method, export=spec.export)
        memory = profile.memory_bytes(passes.max_tokens, shape, method, spec.precision, several=packs_are_several(spec))
        return self.history.corrected("tune", seconds, memory, disk)

    def _tune_by_history(self, spec: Tune, shape: Shape, passes: TrainingPasses, model_key: str) -> Expected:
        """From the rate of finished stages of the same method alone: good to a third or so."""
        method: Any = spec.method
        alike = {"method": _plain(spec.method.identity()), "precision": spec.precision}
        rate = self.history.flops_per_second("tune", alike)
        flops = pack_flops(passes.whole, shape, method) * passes.scale
        flops += forward_pack_flops(passes.evaluation, shape) * passes.num_evaluations
        return Expected(flops / rate if rate else None, self.history.peak_memory_bytes("tune", alike, model_key))

    def _generate(self, stage: Stage, spec: Generate) -> Expected:
        model = stage.inputs["model"]
        shape = self.known.shape(model) if isinstance(model, Stage) else None
        prompts = self.known.prompts(stage)
        if shape is None or prompts is None or not isinstance(model, Stage):
            return Expected()
        answers = self.known.answers(stage, prompts)
        disk = sum(map(sum, answers)) * TOKEN_BYTES + len(answers) * ITEM_BYTES
        each = BYTES[spec.precision]
        tuned = input_stage(stage, "tuned")
        profile = self.calibration.answer.get(answer_profile_name(shape, spec))
        calls = self.answering(stage, prompts, answers, paged=profile is not None and profile.paged)
        if profile is None or calls is None:
            rate = self.history.flops_per_second("generate", {"precision": spec.precision})
            flops = _answering_flops(shape, prompts, answers)
            memory = self.history.peak_memory_bytes("generate", {"precision": spec.precision}, model.key)
            return Expected(flops / rate if rate else None, memory, disk)
        method: Any = None if tuned is None else getattr(tuned.spec, "method", None)
        adapted = method is not None and num_trainable(shape, method) < num_parameters(shape)
        return self.history.corrected(
            "generate", profile.seconds(calls, shape, adapted=adapted, each=each), profile.memory_bytes(calls, shape, each=each), disk
        )

    # Passes

    def training(self, stage: Stage, *, alone: bool) -> TrainingPasses | None:
        """The passes of a `tune` stage; the same for every seed and rate. None: its rows are not known."""
        spec: Any = stage.spec
        prepare = input_stage(stage, "data")
        rows = None if prepare is None else self.known.rows(prepare)
        if prepare is None or rows is None or not len(rows[0]):
            return None
        settings = {name: getattr(spec, name) for name in ("batch_tokens", "micro_batch_tokens", "epochs", "budget", "num_evaluations")}
        name = (prepare.key, tuple(settings.values()), alone)
        if name not in self._training:
            passes = training_passes(*rows, **settings, seed=spec.seed, alone=alone, most_steps=self.most_steps)
            self._training[name] = passes
        return self._training[name]

    def answering(self, stage: Stage, prompts: Turns, answers: Turns, *, paged: bool) -> list[AnsweringPasses] | None:
        """The passes of a `generate` stage, a list entry a turn; None: an engine whose schedule is not known. `paged`: as of a profile."""
        spec: Any = stage.spec
        name = (str(spec.engine), paged, answers_name(stage))
        if self.is_large:  # answers of about the same length are taken for the same
            mean = sum(map(sum, answers)) / max(1, sum(map(len, answers)))
            name = (str(spec.engine), paged, prompts_fact(stage), round(math.log(max(mean, 1e-3)) / ALIKE))

        if name not in self._answering:
            shared = self.known.shared(stage) if paged else 0
            calls: list[AnsweringPasses] = []
            for turn in range(max(map(len, prompts))):
                asked = [k for k, turns in enumerate(prompts) if len(turns) > turn]
                lengths = [prompts[k][turn] + sum(answers[k][:turn]) - shared for k in asked]
                call = engine_passes(spec.engine, lengths, [answers[k][turn] for k in asked], paged=paged)
                if call is None:
                    return None
                calls.append(call)
            self._answering[name] = calls
        return self._answering[name]


def engine_passes(engine: Engine, prompts: list[int], answers: list[int], *, paged: bool) -> AnsweringPasses | None:
    """The passes of one call of an engine; None: its schedule is not known."""
    if isinstance(engine, Packed):
        return answering_passes(prompts, answers, max_rows=engine.max_rows, prefill_tokens=engine.prefill_tokens, paged=paged)
    if engine.group_size is not None:
        return batched_passes(prompts, answers, batch_size=engine.group_size)
    return None


def checkpoint_bytes(shape: Shape, spec: Tune, seconds: float | None) -> int:
    """What a training run keeps beside its result while it goes on: the checkpoints that stay, and one that is being written."""
    if seconds is not None and 0 < seconds < spec.checkpoint_seconds:
        return 0
    method: Any = spec.method
    return (KEPT + 1) * num_trainable(shape, method) * 12


def _answering_flops(shape: Shape, prompts: Turns, answers: Turns) -> int:
    return generation_flops(
        shape, ((p, a, 0) for turns, given in zip(prompts, answers, strict=True) for p, a in zip(turns, given, strict=True))
    )


def _plain(value: Any) -> Any:
    """As it reads in a stored recipe."""
    return json.loads(json.dumps(value))


def predict(stages: Iterable[Stage], store: Store, cache_dir: Path) -> dict[str, Expected]:
    """Key -> what the stage will take. What cannot be known is None; a damaged file that a figure would come from counts as unknown."""
    listed = list(stages)
    forecaster = Forecaster(store, cache_dir, num_tuned=sum(isinstance(stage.spec, Tune) for stage in listed))
    found: dict[str, Expected] = {}
    for stage in listed:
        try:
            found[stage.key] = forecaster.of(stage)
        except CampanaError:
            found[stage.key] = Expected()
    return found


@dataclass(frozen=True)
class Needs:
    """What a probe has to find out, each with a stage that shows it."""

    models: Mapping[str, Stage]
    """Model keys whose configuration is not known."""
    rows: Mapping[str, Stage]
    """`prepare` keys whose row lengths are not known."""
    prompts: Mapping[str, Stage]
    """Prompt facts that are not known, with a `generate` stage."""
    tune: tuple[Stage, ...]
    """`tune` stages, one a profile that is missing."""
    answer: tuple[Stage, ...]
    """`generate` stages, one a profile that is missing."""
    readers: ReaderNeeds

    def __bool__(self) -> bool:
        return bool(self.models or self.rows or self.prompts or self.tune or self.answer or self.readers.stages)

    def __str__(self) -> str:
        """In words."""
        counts = {"models": len(self.models), "prepared data": len(self.rows), "prompts": len(self.prompts)}
        counts |= {"tuning methods": len(self.tune), "engines": len(self.answer)}
        counts |= {"questions on passages": len(self.readers.work), "objectives": len(self.readers.train)}
        counts |= {"readers": len(self.readers.answer)}
        return ", ".join(f"{name} ({count})" for name, count in counts.items() if count)

    @property
    def name(self) -> str:
        """The same for the same needs on the same machine."""
        stages = [*self.models.values(), *self.rows.values(), *self.prompts.values(), *self.tune, *self.answer, *self.readers.stages]
        return " ".join(["needs", fingerprint(), *sorted({stage.key for stage in stages})])


def missing_knowledge(stages: Iterable[Stage], store: Store, cache_dir: Path) -> Needs:
    """What the predictions of these stages lack and a probe could find out."""
    listed = list(stages)
    forecaster = Forecaster(store, cache_dir)
    known, calibration = forecaster.known, forecaster.calibration
    models: dict[str, Stage] = {}
    rows: dict[str, Stage] = {}
    prompts: dict[str, Stage] = {}
    tune: dict[str, Stage] = {}
    answer: dict[str, Stage] = {}
    for stage in listed:
        model = input_stage(stage, "model")
        if isinstance(stage.spec, Model) and known.config(stage) is None:
            models[stage.key] = stage
        if isinstance(stage.spec, Prepare) and known.rows(stage) is None:
            rows[stage.key] = stage
        if model is None or not isinstance(stage.spec, (Tune, Generate)):
            continue
        if known.config(model) is None:
            models[model.key] = model
        shape = known.shape(model)
        hidden = known.config(model) is None
        if isinstance(stage.spec, Tune) and (shape or hidden):
            prepare = input_stage(stage, "data")
            if prepare is not None and known.rows(prepare) is None:
                rows[prepare.key] = prepare
            name = f"{model.key} {family(stage.spec)}"
            if shape is None or not calibration.is_settled("tune", tune_profile_name(shape, stage.spec)):
                tune.setdefault(name, stage)
        if isinstance(stage.spec, Generate) and (shape or hidden):
            if known.prompts(stage) is None:
                prompts.setdefault(prompts_fact(stage), stage)
            name = f"{model.key} {stage.spec.engine.identity()} {stage.spec.precision}"
            unmeasured = shape is None or not calibration.is_settled("answer", answer_profile_name(shape, stage.spec))
            if unmeasured and (name not in answer or "tuned" not in stage.inputs):  # an untuned one shows how long the base's answers are
                answer[name] = stage
    return Needs(models, rows, prompts, tuple(tune.values()), tuple(answer.values()), readers.missing(listed, known, calibration))
