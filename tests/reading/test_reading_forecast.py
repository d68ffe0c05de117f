"""What a plan says of a study of readers before anything ran, by the public command; and that it counts what training reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_questions import world

from campana.core.index import Index
from campana.core.store import Store
from campana.forecast.calibration import Facts
from campana.forecast.contents import reading_work
from campana.forecast.known import encoder_of, reading_fact, suite_fact
from campana.forecast.timed_reading import blocks, of_both_kinds
from campana.reading.files import write_examples
from campana.reading.triples import write_families
from campana.stages.read_answer import ReadAnswer
from campana.stages.read_train import ReadTrain
from campana.study import load_study

STUDY = """\
question: Does spanCL teach a reader to abstain?
primary: {measure: score, contrast: [objective=spancl, objective=cross_entropy]}
seeds: [0]
models: {tiny: encoder}
data: {train: {path: train.jsonl}, held_out: {path: held_out.jsonl}, made: {path: made.jsonl}}
suites: {asked: {path: test.jsonl, format: reading}}
base:
  model: tiny
  read:
    train: train
    held_out: held_out
    suite: asked
    made: made
    spans: {steps: 6, lr: 5.0e-3}
    questions: balanced
    steps: 12
    plain_steps: 4
    lr: 5.0e-3
    batch_tokens: 256
    max_length: 64
    overlap: 8
factors:
  objective:
    cross_entropy: {read.objective: cross_entropy}
    spancl: {read.objective: {kind: spancl, weight: 0.5}}
measure: {average: macro}
"""


@pytest.fixture
def folder(save_encoder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study file, what it names, and a cache of its own."""
    save_encoder()
    monkeypatch.setenv("CAMPANA_CACHE", str(tmp_path / "cache"))
    for kind in ("train", "held_out", "test"):
        write_examples(tmp_path / f"{kind}.jsonl", world(f"{kind}-", kind)[0])
    write_families(tmp_path / "made.jsonl", world("train-", "train")[1])
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path


def plan(*words: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the probe writes to a stderr that is a file."""
    argv = [sys.executable, "-m", "campana", "plan", *map(str, words), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_plan_measures_readers_once_and_knows_what_they_read(folder: Path, campana: Callable[..., tuple[int, str, str]]) -> None:
    words = (folder / "study.yaml", "--store", folder / "store")
    planned = plan(*words)
    told = json.loads(planned.stdout)
    assert told["forecast"]["unknown"] == 0, planned.stderr
    for stage in told["stages"]:
        assert 0 < stage["forecast"]["seconds"] < 600, stage["label"]
        if stage["kind"] in ("read_train", "read_answer"):
            assert 10**8 < stage["forecast"]["memory_bytes"] < 10**10, stage["label"]
            assert stage["forecast"]["disk_bytes"] > 0
    assert "measuring" in planned.stderr
    assert "measuring" not in plan(*words).stderr

    code, _, err = campana("run", *words)
    assert code == 0, err
    store, facts = Store(folder / "store"), Facts(folder / "cache")
    study = load_study(folder / "study.yaml")
    stages = {stage.key: stage for arm in study.arms for stage in (*arm.stages.tune.values(), *arm.stages.generate.values())}
    assert len(stages) == 4
    for stage in stages.values():
        meter = store.manifest(stage.key).meter
        if isinstance(stage.spec, ReadTrain):
            assert (facts.get(reading_fact(stage)) or {})["tokens"] == meter["tokens"]
        if isinstance(stage.spec, ReadAnswer):
            fact = facts.get(suite_fact(stage)) or {}
            assert (fact["tokens"], fact["questions"]) == (meter["tokens"], meter["questions"])
    assert {encoder.key for stage in stages.values() if (encoder := encoder_of(stage))} == {
        entry.key for entry in Index.load(store).by_kind["model"]
    }


def test_objectives_that_read_more_are_counted_with_it(folder: Path) -> None:
    def work(objective: Any, plain_steps: int = 0) -> dict[str, Any]:
        fields = {"steps": 12, "plain_steps": plain_steps, "batch_tokens": 256, "max_length": 64, "overlap": 8}
        spec = ReadTrain.model_validate({**fields, "objective": objective, "learning_rate": {"value": 1e-3}})
        return reading_work([spec], folder / "encoder", folder / "train.jsonl", folder / "held_out.jsonl", folder / "made.jsonl")[0]

    one, two = work("cross_entropy"), work("rdrop")
    assert two["tokens"] == 2 * one["tokens"]
    assert two["heavy_tokens"] == 2 * one["heavy_tokens"] > 256
    assert two["heavy"] == one["heavy"]
    assert work("rdrop", plain_steps=12)["tokens"] == one["tokens"]
    assert one["tokens"] < work("spancl")["tokens"] <= 3 * one["tokens"]


def test_questions_for_a_measurement_are_taken_from_all_of_a_file() -> None:
    examples = [example for number in range(20) for example in world(f"{number}-", "train")[0]]
    few = blocks(examples, 40)
    assert 40 <= len(few) < len(examples)
    assert (few[0], few[-1]) == (examples[0], examples[-1])
    assert blocks(examples, 10**6) == examples
    both = of_both_kinds(examples, 8)
    assert sum(example.answerable is True for example in both) == 4 == len(both) - 4
