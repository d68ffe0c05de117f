"""The probe: find out what predictions lack, in well under a minute, with the very code that the stages run.

    probe(stages, store, cache_dir, tell=print)            # or: python -m campana.forecast.probe STUDY --store STORE --cache CACHE

It reads configurations, row and prompt lengths, runs a few steps of each method and a few passes of each engine, and keeps what it
found in the cache. The store stays as it is. Every measurement is a process of its own, forked from this one, so that its peak of
memory is its own and no thread is ever forked; where forking is not safe, it is started anew.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from campana.core.spec import Source, Stage
from campana.core.store import Store
from campana.errors import CampanaError
from campana.forecast.calibration import Calibration, Facts
from campana.forecast.children import in_child
from campana.forecast.contents import bring, prepare_rows, prompt_ids, reading_work, suite_work
from campana.forecast.known import (
    Known,
    answer_profile_name,
    answers_fact,
    encoder_of,
    input_stage,
    model_fact,
    prompts_fact,
    read_answer_profile_name,
    read_train_profile_name,
    reading_fact,
    reading_table,
    rows_fact,
    suite_fact,
    tune_profile_name,
)
from campana.forecast.predict import Needs, missing_knowledge
from campana.forecast.readers import ReaderNeeds
from campana.forecast.timed_answers import answer_profile
from campana.forecast.timed_reading import ReadingFiles, read_answer_profile, read_train_profile
from campana.forecast.timed_tuning import optimizer_seconds, tune_profile
from campana.models.cost import num_trainable
from campana.models.shape import num_parameters
from campana.stages._imports import TUNING
from campana.stages.read_train import ReadTrain

Tell = Callable[[str], None]


def probe(stages: list[Stage], store: Store, cache_dir: Path, tell: Tell) -> list[str]:
    """Find out what the predictions of these stages lack; returns in words what could not be found out."""
    needs = missing_knowledge(stages, store, cache_dir)
    if not needs:
        return []
    for name in TUNING:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="campana-probe-") as name:
        return _Probe(store, cache_dir, Path(name), tell).run(needs)


class _Told(Exception):  # noqa: N818 (not an error of its own)
    """What is asked for rests on something whose failure has been told."""


class _Probe:
    def __init__(self, store: Store, cache_dir: Path, folder: Path, tell: Tell) -> None:
        self._store, self._cache_dir, self._folder, self._tell = store, cache_dir, folder, tell
        self._facts = Facts(cache_dir)
        self._known = Known(store, self._facts)
        self._calibration = Calibration.load(cache_dir)
        self._start = time.perf_counter()
        self._failures: list[str] = []
        self._dirs: dict[str, Path] = {}
        self._broken: set[str] = set()
        """Keys of what could not be brought in or prepared."""

    def run(self, needs: Needs) -> list[str]:
        for stage in needs.models.values():
            self._try(stage.label, lambda stage=stage: self._model_dir(stage))
        for stage in needs.rows.values():
            self._try(stage.label, lambda stage=stage: self._data_dir(stage))
        for stage in needs.prompts.values():
            self._try(stage.label, lambda stage=stage: self._prompts(stage))
        self._known = Known(self._store, self._facts)
        adapter: dict[str, Path] = {}
        if needs.tune or needs.answer or needs.readers.train or needs.readers.answer:
            in_child(compile_kernels, self._folder / "kernels.json", self._cache_dir)  # no measured run waits for GCC
        step_seconds = in_child(optimizer_seconds, self._folder / "optimizer.json") if needs.tune else 0.0
        for stage in needs.tune:
            self._try(stage.label, lambda stage=stage: self._tune(stage, step_seconds, adapter))
        for stage in needs.answer:
            self._try(stage.label, lambda stage=stage: self._answer(stage, adapter))
        self._readers(needs.readers)
        return self._failures

    def _readers(self, needs: ReaderNeeds) -> None:
        tables: dict[str, list[Stage]] = {}
        for stage in needs.work.values():
            if isinstance(stage.spec, ReadTrain):
                tables.setdefault(reading_table(stage), []).append(stage)
            else:
                self._try(stage.label, lambda stage=stage: self._suite(stage))
        for stages in tables.values():
            self._try(stages[0].label, lambda stages=stages: self._windows(stages))
        readers: dict[str, Path] = {}
        for stage in needs.train:
            self._try(stage.label, lambda stage=stage: self._read_train(stage, readers))
        for stage in needs.answer:
            self._try(stage.label, lambda stage=stage: self._read_answer(stage, readers))

    def _say(self, text: str) -> None:
        self._tell(f"  {time.perf_counter() - self._start:3.0f} s  {text}")

    def _try(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except _Told:
            return
        except CampanaError as error:
            self._failures.append(f"{what}: {error.message}")

    def _once(self, stage: Stage, doing: str, work: Callable[[], Any]) -> Any:
        """What `work` returns; what failed once is not tried again."""
        if stage.key in self._broken:
            raise _Told
        self._say(f"{stage.label}: {doing}")
        try:
            return work()
        except CampanaError:
            self._broken.add(stage.key)
            raise

    def _model_dir(self, model: Stage) -> Path:
        """The model's folder: stored, or brought in for the probe."""
        if self._store.has(model.key):
            return self._store.path(model.key)
        found = self._dirs.get(model.key)
        if found is None:
            found = self._folder / model.key[:16]
            files = model.inputs.get("files")
            local = files.path if isinstance(files, Source) else None
            spec: Any = model.spec
            took = self._once(
                model, "bringing it in", lambda: in_child(bring, self._folder / "bring.json", spec.source, local, found, self._cache_dir)
            )
            self._dirs[model.key] = found
            config = json.loads((found / "config.json").read_text(encoding="utf-8"))
            kept = sum(path.stat().st_size for path in found.iterdir() if path.suffix != ".safetensors")
            self._facts.put(model_fact(model), {"config": config, "tokenizer_bytes": kept, **took})
        return found

    def _data_dir(self, prepare: Stage) -> Path:
        """The prepared rows: stored, or prepared for the probe."""
        if self._store.has(prepare.key):
            return self._store.path(prepare.key)
        found = self._dirs.get(prepare.key)
        if found is None:
            model = input_stage(prepare, "model")
            assert model is not None
            found = self._folder / prepare.key[:16]
            paths = {name.removeprefix("data."): each.path for name, each in prepare.inputs.items() if isinstance(each, Source)}
            model_dir = self._model_dir(model)
            took = self._once(
                prepare,
                "counting its tokens",
                lambda: in_child(prepare_rows, self._folder / "rows.json", prepare.spec, model_dir, paths, found),
            )
            self._dirs[prepare.key] = found
            disk = sum(path.stat().st_size for path in found.iterdir())
            self._facts.put(rows_fact(prepare), {**took, "disk_bytes": disk})
        return found

    def _prompts(self, generate: Stage) -> list[list[list[int]]]:
        """Token ids of each turn's prompt of each item; their lengths become a fact."""
        model = input_stage(generate, "model")
        suite = generate.inputs["suite"]
        assert model is not None
        assert isinstance(suite, Source)
        found = in_child(prompt_ids, self._folder / "prompts.json", generate.spec, self._model_dir(model), suite.path)
        lengths = [[len(ids) for ids in turns] for turns in found["turns"]]
        self._facts.put(prompts_fact(generate), {"turns": lengths, "shared": found["shared"]})
        return found["turns"]

    def _tune(self, stage: Stage, step_seconds: float, adapter: dict[str, Path]) -> None:
        model, prepare = input_stage(stage, "model"), input_stage(stage, "data")
        assert model is not None
        assert prepare is not None
        model_dir, data_dir = self._model_dir(model), self._data_dir(prepare)
        shape = Known(self._store, self._facts).shape(model)
        if shape is None:
            return
        spec: Any = stage.spec
        self._say(f"{spec.method.kind}: a few steps")
        out_dir = self._folder / f"tuned-{stage.key[:16]}"
        profile = tune_profile(spec, shape, model_dir, data_dir, out_dir, self._cache_dir, step_seconds)
        self._calibration.tune[tune_profile_name(shape, spec)] = profile
        self._calibration.save()
        if num_trainable(shape, spec.method) < num_parameters(shape):
            adapter[model.key] = out_dir

    def _answer(self, stage: Stage, adapter: Mapping[str, Path]) -> None:
        model = input_stage(stage, "model")
        assert model is not None
        shape = Known(self._store, self._facts).shape(model)
        if shape is None:
            return
        spec: Any = stage.spec
        prompts = [turns[0] for turns in self._prompts(stage)]
        self._say(f"{spec.engine.kind}: a few passes")
        result_path = self._folder / f"answers-{stage.key[:16]}.json"
        adapter_dir = adapter.get(model.key)
        profile, answers = answer_profile(spec, shape, self._model_dir(model), adapter_dir, prompts, result_path, self._cache_dir)
        self._calibration.answer[answer_profile_name(shape, spec)] = profile
        self._calibration.save()
        if "tuned" not in stage.inputs:
            self._facts.put(answers_fact(stage), {"answers": answers})

    def _reading_files(self, stage: Stage) -> ReadingFiles:
        """Of a `read_train` stage; the encoder stands for whatever it goes on from."""
        paths = {name: each.path for name, each in stage.inputs.items() if isinstance(each, Source)}
        return ReadingFiles(self._model_dir(encoder_of(stage)), paths["train"], paths["held_out"], paths.get("made"))

    def _windows(self, stages: list[Stage]) -> None:
        """Facts of `read_train` stages that learn from one table."""
        files = self._reading_files(stages[0])
        self._say(f"{stages[0].label}: counting what is read")
        specs = [stage.spec for stage in stages]
        found = in_child(reading_work, self._folder / "reading.json", specs, files.start, files.train, files.held_out, files.made)
        for stage, work in zip(stages, found, strict=True):
            self._facts.put(reading_fact(stage), work)

    def _suite(self, stage: Stage) -> None:
        trained, suite = input_stage(stage, "reader"), stage.inputs["suite"]
        assert trained is not None
        assert isinstance(suite, Source)
        spec: Any = stage.spec
        start = self._reading_files(trained).start
        work = in_child(suite_work, self._folder / "suite.json", trained.spec, start, suite.path, spec.max_items)
        self._facts.put(suite_fact(stage), work)

    def _read_train(self, stage: Stage, readers: dict[str, Path]) -> None:
        spec: Any = stage.spec
        work = self._facts.get(reading_fact(stage))
        if work is None:
            return
        self._say(f"{spec.objective.kind}: a few steps")
        out_dir = self._folder / f"reader-{stage.key[:16]}"
        profile = read_train_profile(spec, self._reading_files(stage), work, out_dir, self._cache_dir)
        self._calibration.read_train[read_train_profile_name(stage)] = profile
        self._calibration.save()
        readers[encoder_of(stage).key] = out_dir / "model"

    def _read_answer(self, stage: Stage, readers: dict[str, Path]) -> None:
        encoder, trained, suite = encoder_of(stage), input_stage(stage, "reader"), stage.inputs["suite"]
        assert trained is not None
        assert isinstance(suite, Source)
        if encoder.key not in readers:
            self._read_train(trained, readers)
        if encoder.key not in readers:
            return
        self._say("a reader: some questions")
        out_dir = self._folder / f"read-{stage.key[:16]}"
        profile = read_answer_profile(stage.spec, readers[encoder.key], suite.path, out_dir, self._cache_dir)
        self._calibration.read_answer[read_answer_profile_name(stage)] = profile
        self._calibration.save()


def compile_kernels(cache_dir: Path) -> list[str]:
    """Leave the compiled code in the cache; returns for which precisions it can be had here."""
    from campana.native.compiled import Compiled

    return [precision for precision in ("bf16", "fp32") if Compiled.find(precision, cache_dir) is not None]


def main() -> int:
    """Probe what a study lacks."""
    parser = argparse.ArgumentParser(prog="campana.forecast.probe", description="Measure what a study's predictions lack.")
    parser.add_argument("study", type=Path)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    from campana.core.digest import DigestCache, digest_path
    from campana.core.graph import by_key
    from campana.core.plan import needed_keys
    from campana.study import load_study

    store = Store(options.store)
    study = load_study(options.study, digest=lambda path: digest_path(path, DigestCache(store.root)))
    stages = by_key(study.targets)
    built = {key for key in stages if store.has(key)}
    needed = needed_keys(stages, [target.key for target in study.targets], built)
    failures = probe([stages[key] for key in stages if key in needed], store, options.cache, tell=lambda text: print(text, file=sys.stderr))  # noqa: T201
    for text in failures:
        sys.stderr.write(f"  not known: {text}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
