"""The planner on a toy study, by the public commands: measured once, predicted, recorded, and shown beside what it took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from campana.core.machine import this_machine

pytestmark = pytest.mark.slow

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("planned") / "study"
    shutil.copytree(toy, target)
    return target


@pytest.fixture(scope="module")
def campana(folder: Path) -> Call:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CAMPANA_CACHE": str(folder / "cache")}
        argv = [sys.executable, "-m", "campana", *words]
        done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done

    return call


@pytest.fixture(scope="module")
def planned(campana: Call) -> subprocess.CompletedProcess[str]:
    return campana("plan", "study.yaml", "--json")


def test_without_a_probe_nothing_is_made_up(campana: Call, folder: Path) -> None:
    told = json.loads(campana("plan", "study.yaml", "--no-probe", "--json", "--store", "elsewhere").stdout)
    tune = next(stage for stage in told["stages"] if stage["kind"] == "tune")
    assert tune["forecast"]["seconds"] is None or (folder / "cache" / "forecast").is_dir()
    assert not (folder / "elsewhere" / "objects").exists()


def test_a_plan_measures_once_and_predicts_every_stage(planned: Any, campana: Call, folder: Path) -> None:
    assert "measuring this machine" in planned.stderr
    told = json.loads(planned.stdout)
    Draft202012Validator(json.loads(campana("describe", "--schema", "plan").stdout)).validate(told)
    assert told["forecast"]["unknown"] == 0, planned.stderr
    for stage in told["stages"]:
        assert 0 < stage["forecast"]["seconds"] < 600, stage["label"]  # a toy: what is far off is wrong, however busy the machine
        if stage["kind"] in ("tune", "generate"):
            assert stage["forecast"]["memory_bytes"] > 10**8
            assert stage["forecast"]["disk_bytes"] > 0
    assert told["forecast"]["money"] == pytest.approx(told["forecast"]["seconds"] / 1000, rel=1e-6)
    assert not (folder / ".campana" / "objects").exists(), "the probe leaves the store alone"
    again = campana("plan", "study.yaml")
    assert "measuring" not in again.stderr
    assert again.stdout.splitlines()[3].startswith("about ")
    assert " EUR on this machine" in again.stdout


def test_a_run_records_what_was_predicted_and_the_report_compares(planned: Any, campana: Call, folder: Path) -> None:
    before = {stage["key"]: stage["forecast"] for stage in json.loads(planned.stdout)["stages"]}
    campana("run", "study.yaml")
    report = json.loads((folder / ".campana/reports/study/report.json").read_text(encoding="utf-8"))
    Draft202012Validator(json.loads(campana("describe", "--schema", "report").stdout)).validate(report)
    forecast = report["measured"]["forecast"]
    assert {line["key"]: line["seconds"]["predicted"] for line in forecast["stages"]} == pytest.approx(
        {key: told["seconds"] for key, told in before.items()}
    )
    for kind in ("tune", "generate"):
        assert forecast["kinds"][kind]["memory_bytes"]["median"] == pytest.approx(1, abs=0.25)
    assert forecast["kinds"]["tune"]["disk_bytes"]["median"] == pytest.approx(1, abs=0.25)
    page = (folder / ".campana/reports/study/report.html").read_text(encoding="utf-8")
    assert "Predicted and actual" in page
    assert json.loads(campana("plan", "study.yaml", "--json").stdout)["forecast"] is None, "nothing is left to predict"


@pytest.mark.skipif(this_machine().cores < 2, reason="a stage of one core has the whole machine")
@pytest.mark.usefixtures("planned")
def test_stages_of_few_cores_run_side_by_side_and_their_times_are_not_foretold(campana: Call, folder: Path) -> None:
    told = campana("run", "study.yaml", "--store", "narrow", "--cores", "1").stderr
    running = [{"start": 1, "built": -1}.get(line.split()[0], 0) for line in told.splitlines() if line.strip()]
    assert max(accumulate(running)) > 1
    manifests = [json.loads(path.read_text(encoding="utf-8")) for path in (folder / "narrow").rglob("manifest.json")]
    tuned = [each["execution"] for each in manifests if each["kind"] == "tune"]
    assert {each["resources"]["cores"] for each in tuned} == {1}
    assert {each["expected"]["seconds"] for each in tuned} == {None}
    assert all(each["expected"]["memory_bytes"] > 10**8 for each in tuned), "what is needed to run them together is known"


def test_layers_that_only_the_model_can_name_do_not_end_a_plan(campana: Call, folder: Path) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        (folder / "model" / name).unlink(missing_ok=True)
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=400, **sizes)).save_pretrained(folder / "model")
    text = (folder / "study.yaml").read_text(encoding="utf-8")
    (folder / "study.yaml").write_text(text.replace("rank: 4}", "rank: 4, targets: [query_key_value]}"), encoding="utf-8")
    assert "tune method=lora" in campana("plan", "study.yaml", "--no-probe").stdout


def test_what_cannot_be_found_out_is_told_once(campana: Call, folder: Path) -> None:
    for path in (folder / "model").glob("*.safetensors"):
        path.unlink()
    told = campana("plan", "study.yaml", "--store", "another").stderr
    assert told.count("bringing it in") == 1
    (line,) = [line for line in told.splitlines() if "not known" in line]
    assert "the model folder has no model.safetensors (download the model again" in line
