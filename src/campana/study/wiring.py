"""From an arm's recipe to its stages: model -> prepare -> (trials -> select) -> tune -> generate -> check; readers in `readers`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from campana.checks import parse_checks, score_item
from campana.core.spec import Resources, Source, Stage
from campana.data.files import locate_data
from campana.data.format import Format
from campana.data.suites import SuiteFormat, prompts_digest, read_suite
from campana.data.templates import NAMED
from campana.errors import DataError, StudyError
from campana.generation.engine import Greedy, Sample
from campana.models.parse import parse_source
from campana.models.sources.local import Local
from campana.parts import find, kind_of, nearest, parts_in
from campana.records import Answer, Item
from campana.stages.check import CheckStage
from campana.stages.generate import Generate
from campana.stages.model import Model
from campana.stages.prepare import Portion, Prepare
from campana.stages.select import Select
from campana.stages.tune import Tune
from campana.study.complaints import study_error
from campana.study.readers import ReaderRecipe, ReaderWiring
from campana.study.schema import ArmRecipe, Search, StudyFile, TuneRecipe
from campana.tuning.options import FixedRate, SelectedRate

Digest = Callable[[Path], str]
"""A path -> `sha256:...` of its content."""


@dataclass(frozen=True)
class ArmStages:
    """The stages of one arm; the maps are by seed. Of a reader, `tune` trains, `generate` answers questions and `check` scores."""

    model: Stage
    prepare: Stage | None
    trials: tuple[Stage, ...]
    select: Stage | None
    tune: Mapping[int, Stage]
    generate: Mapping[int, Stage]
    check: Mapping[int, Stage]
    first: Mapping[int, Stage] = field(default_factory=dict)
    """Of a reader: its first phase, where it has one."""
    data_names: Mapping[str, str] = field(default_factory=dict)
    """Input of `prepare` -> the study's name of the data set."""

    @property
    def tuning(self) -> tuple[Stage, ...]:
        """All stages that exist for the arm's tuning."""
        extra = [stage for stage in (self.prepare, self.select) if stage is not None]
        return (*extra, *self.trials, *self.first.values(), *self.tune.values())


class Wiring:
    """Builds the stages of a study's arms; what two arms share is one stage."""

    def __init__(self, file: StudyFile, base_dir: Path, digest: Digest, cores: int) -> None:
        self._file = file
        self._base_dir = base_dir
        self._digest = digest
        self._heavy = Resources(cores=cores, memory_bytes=4 << 30)
        self._sources: dict[Path, Source] = {}
        self._models: dict[str, Stage] = {}
        self._formats: dict[str, Format] = {}
        self._suites_read: dict[str, tuple[Item, ...]] = {}
        self._raised: dict[str, dict[str, int]] = {}
        self._asked: dict[tuple[str, int | None], Source] = {}
        self._readers = ReaderWiring(file, self._source, self._heavy)

    def stages(self, arm: str, recipe: ArmRecipe | ReaderRecipe) -> ArmStages:
        """All stages of an arm. Unknown names and missing files raise StudyError; data and suites that cannot be read, DataError."""
        if isinstance(recipe, ReaderRecipe):
            return self._reader(arm, recipe)
        if recipe.template not in (templates := ("model", *NAMED)):
            raise StudyError(f"unknown template {recipe.template!r}", where="template", hint=nearest(recipe.template, templates))
        model = self._model(recipe.model)
        suite_name = recipe.generate.suite
        if suite_name not in self._file.suites:
            raise StudyError(f"unknown suite {suite_name!r}", where="generate.suite", hint=nearest(suite_name, list(self._file.suites)))
        suite_format = self._suite_format(suite_name)
        suite_source = self._suite(suite_name)
        asked = self._prompts(suite_name, recipe.generate.max_items)
        self._refuse_unscorable(suite_name, recipe)
        prepare, data_names = self._prepare(recipe, model) if recipe.tune else (None, {})
        trials, select = self._search(arm, recipe.tune, model, prepare)
        tune: dict[int, Stage] = {}
        generate: dict[int, Stage] = {}
        check: dict[int, Stage] = {}
        for seed in self._file.seeds:
            inputs: dict[str, Stage | Source] = {"model": model, "suite": asked}
            if recipe.tune is not None and prepare is not None:
                tune[seed] = self._tune(f"tune {arm} seed={seed}", recipe.tune, model, prepare, select, seed)
                inputs["tuned"] = tune[seed]
            moved = recipe.tune is not None or recipe.generate.temperature > 0
            name = f"{arm} seed={seed}" if moved else arm
            generate[seed] = Stage(self._generate(recipe, suite_format, seed), inputs, self._heavy, f"generate {name}")
            spec = CheckStage(suite_format=suite_format, default=recipe.check.default, versions=self._raised[suite_name])
            check[seed] = Stage(spec, {"answers": generate[seed], "suite": suite_source}, Resources(), f"check {name}")
        return ArmStages(model, prepare, trials, select, tune, generate, check, data_names=data_names)

    def _reader(self, arm: str, recipe: ReaderRecipe) -> ArmStages:
        model = self._model(recipe.model)
        files = self._readers.inputs(recipe)
        first, train, answer, check = self._readers.stages(arm, recipe, model, files)
        return ArmStages(model, None, (), None, train, answer, check, first)

    def _path(self, text: str, place: str) -> Path:
        path = locate_data(text) if text.startswith("hf:") else self._base_dir / os.path.expanduser(text)  # noqa: PTH111  # Path's raises for a ~name of nobody
        if not path.exists():
            raise StudyError(f"no such file: {text}", where=place, hint=f"looked for {path}; paths are relative to the study file")
        return path.resolve()

    def _source(self, text: str, place: str) -> Source:
        path = self._path(text, place)
        if path not in self._sources:
            self._sources[path] = Source(self._digest(path), path)
        return self._sources[path]

    def _suite(self, name: str) -> Source:
        """The suite's file, read once here, so that a wrong item or check is told before anything is trained."""
        suite = self._file.suites[name]
        form = self._suite_format(name)
        source = self._source(suite.path, f"suites.{name}.path")
        if name not in self._suites_read:
            items = tuple(read_suite(source.path, form))
            try:
                checks = [part for item in items for part in parts_in(parse_checks(item))]
            except DataError as error:
                raise DataError(error.message, where=f"{source.path.name}, {error.where}", hint=error.hint) from error
            self._raised[name] = {kind_of(type(check)): check.version for check in checks if check.version != 1}
            self._suites_read[name] = items
        return source

    def _prompts(self, name: str, max_items: int | None) -> Source:
        """The suite as far as answers depend on it: who corrects a check need not answer again."""
        if (name, max_items) not in self._asked:
            suite = self._suite(name)
            self._asked[name, max_items] = Source(prompts_digest(self._suites_read[name], max_items), suite.path, suite.identity)
        return self._asked[name, max_items]

    def _suite_format(self, name: str) -> SuiteFormat:
        form = self._file.suites[name].format
        if form == "reading":
            raise StudyError("questions on passages are for studies of readers", where=f"suites.{name}.format", hint="base: {read: ...}")
        return form

    def _refuse_unscorable(self, name: str, recipe: ArmRecipe) -> None:
        """Told before anything is trained: no check, or chrF without references, scores nothing whatever the answers."""
        items, default = self._suites_read[name], recipe.check.default
        reasons: dict[str, int] = {}
        for item in items:
            answer = Answer(item.id, ("an answer",) * sum(message["role"] == "user" for message in item.messages), "stop", 1, 1)
            score = score_item(item, answer, parse_checks(item) or ((default,) if default else ()))
            if score.value is not None:
                return
            reasons[score.reason] = reasons.get(score.reason, 0) + 1
        if items:
            raise StudyError(
                f"no item of suite {name!r} can be scored: {max(reasons, key=lambda reason: reasons[reason])}",
                where=f"suites.{name}",
                hint="give its items `checks` or a `reference`, or name another check under check.default",
            )

    def _model(self, name: str) -> Stage:
        if name not in self._file.models:
            raise StudyError(f"unknown model {name!r}", where="model", hint=nearest(name, list(self._file.models)))
        if name not in self._models:
            with _placed(f"models.{name}"):
                source, path = parse_source(self._file.models[name], self._base_dir)
            inputs: dict[str, Stage | Source] = {}
            if isinstance(source, Local):
                inputs["files"] = self._source(str(path), f"models.{name}")
            self._models[name] = Stage(Model(source=source), inputs, self._heavy, f"model {name}")
        return self._models[name]

    def _format(self, name: str) -> Format:
        if name not in self._formats:
            from campana.data.detect import detect_format, require_readable

            data = self._file.data[name]
            path = self._path(data.path, f"data.{name}.path")
            if data.format == "auto":
                self._formats[name] = detect_format(path)
            else:
                values: Any = {"kind": data.format} if isinstance(data.format, str) else data.format
                if not isinstance(values, Mapping) or "kind" not in values:
                    raise StudyError("a format is a name or {kind: name, ...}", where=f"data.{name}.format", hint="format: alpaca")
                self._formats[name] = _parse_format(name, values)
            require_readable(path, self._formats[name])
        return self._formats[name]

    def _prepare(self, recipe: ArmRecipe, model: Stage) -> tuple[Stage, dict[str, str]]:
        tune = recipe.tune
        assert tune is not None
        found: list[tuple[Source, str, Portion]] = []
        for name, amount in tune.data.items():
            if name not in self._file.data:
                raise StudyError(f"unknown data set {name!r}", where="tune.data", hint=nearest(name, list(self._file.data)))
            portion = Portion(
                format=self._format(name),
                count=amount if isinstance(amount, int) else None,
                fraction=amount if isinstance(amount, float) else None,
            )
            found.append((self._source(self._file.data[name].path, f"data.{name}.path"), name, portion))
        found.sort(key=lambda entry: entry[0].identity)  # Names are the person's: inputs are numbered by content.
        spec = Prepare(
            portions={str(index): portion for index, (_, _, portion) in enumerate(found)},
            template=recipe.template,
            max_length=tune.max_length,
            validation=tune.validation,
            subset_seed=self._file.subset_seed,
        )
        inputs: dict[str, Stage | Source] = {"model": model, **{f"data.{index}": source for index, (source, _, _) in enumerate(found)}}
        amounts = " ".join(f"{name}={amount}" for name, amount in tune.data.items())
        stage = Stage(spec, inputs, Resources(cores=self._heavy.cores, memory_bytes=2 << 30), f"prepare {amounts}")
        return stage, {str(index): name for index, (_, name, _) in enumerate(found)}

    def _search(self, arm: str, tune: TuneRecipe | None, model: Stage, prepare: Stage | None) -> tuple[tuple[Stage, ...], Stage | None]:
        if tune is None or prepare is None or not isinstance(tune.lr, Search):
            return (), None
        trials = tuple(
            self._tune(f"trial {arm} lr={rate:g}", tune, model, prepare, None, self._file.seeds[0], rate, tune.lr.budget)
            for rate in tune.lr.search
        )
        inputs = {f"trial.{index}": trial for index, trial in enumerate(trials)}
        return trials, Stage(Select(candidates=tune.lr.search), inputs, Resources(), f"select {arm}")

    def _tune(
        self,
        label: str,
        tune: TuneRecipe,
        model: Stage,
        prepare: Stage,
        select: Stage | None,
        seed: int,
        trial_rate: float | None = None,
        budget: float = 1.0,
    ) -> Stage:
        rate = trial_rate if trial_rate is not None else tune.lr
        spec = Tune(
            method=tune.method,
            learning_rate=FixedRate(value=rate) if isinstance(rate, float) else SelectedRate(),
            epochs=tune.epochs,
            batch_tokens=tune.batch_tokens,
            schedule=tune.schedule,
            optimizer=tune.optimizer,
            max_grad_norm=tune.max_grad_norm,
            precision=tune.precision,
            seed=seed,
            budget=budget,
            export=trial_rate is None,
            num_evaluations=tune.num_evaluations if trial_rate is None else 1,
            micro_batch_tokens=tune.micro_batch_tokens,
            checkpoint_seconds=tune.checkpoint_seconds,
        )
        inputs: dict[str, Stage | Source] = {"model": model, "data": prepare}
        if select is not None:
            inputs["select"] = select
        return Stage(spec, inputs, replace(self._heavy, ranks=tune.ranks), label)

    def _generate(self, recipe: ArmRecipe, suite_format: SuiteFormat, seed: int) -> Generate:
        wanted = recipe.generate
        greedy = wanted.temperature == 0
        return Generate(
            engine=wanted.engine,
            suite_format=suite_format,
            template=recipe.template,
            sampling=Greedy() if greedy else Sample(seed=seed, temperature=wanted.temperature, top_p=wanted.top_p, top_k=None),
            max_new_tokens=wanted.max_new_tokens,
            max_items=wanted.max_items,
            precision=wanted.precision,
        )


@contextlib.contextmanager
def _placed(where: str) -> Generator[None]:
    """Say where in the study file a value is that a library does not know."""
    try:
        yield
    except StudyError as error:
        raise StudyError(error.message, where=where, hint=error.hint) from None


def _parse_format(name: str, values: Mapping[str, Any]) -> Format:
    with _placed(f"data.{name}.format"):
        cls = find("format", str(values["kind"]))
    try:
        return cls.model_validate(dict(values))  # type: ignore[return-value]  # the group's kinds are Formats
    except ValidationError as error:
        raise study_error(error, cls, values, lambda place: ".".join(map(str, place)), ("data", name, "format")) from None
