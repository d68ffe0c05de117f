"""What a plan says of a study of readers before anything ran, by the public command; and that it counts what training reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_questions import STUDY, world

from campana.core.index import Index
from campana.core.store import Store
from campana.forecast.calibration import Facts
from campana.forecast.contents import reading_work
from campana.forecast.known import encoder_of, reading_fact, suite_fact
from campana.forecast.timed_reading import blocks, of_both_kinds
from campana.stages.read_answer import ReadAnswer
from campana.stages.read_train import ReadTrain
from campana.study import load_study

SHORT = (
    STUDY.replace("[0, 1]", "[0]").replace("steps: 60", "steps: 12").replace("plain_steps: 10", "plain_steps: 4\n    questions: balanced")
)
"""Few steps, and as many questions of both kinds, which a plan must draw as the training does."""
assert SHORT.count("steps: 12") == 2
assert "balanced" in SHORT


@pytest.fixture
def folder(study_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study file, what it names, and a cache of its own."""
    folder = study_folder(SHORT)
    monkeypatch.setenv("CAMPANA_CACHE", str(folder / "cache"))
    return folder


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
    assert {encoder_of(stage).key for stage in stages.values()} == {entry.key for entry in Index.load(store).by_kind["model"]}


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
