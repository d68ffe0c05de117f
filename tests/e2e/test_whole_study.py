"""One file in, an answer out: the promises of the README, kept by the public commands on a toy model."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from campana.report.compare import without_measured

pytestmark = pytest.mark.slow

Campana = Callable[..., subprocess.CompletedProcess[str]]


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / ".campana/reports/study/report.json").read_text(encoding="utf-8"))


def plan_of(campana: Campana, folder: Path, *words: str) -> dict[str, list[str]]:
    stages = json.loads(campana("plan", "study.yaml", "--json", "--no-probe", *words, cwd=folder).stdout)["stages"]
    return {state: [stage["label"] for stage in stages if stage["state"] == state] for state in {stage["state"] for stage in stages}}


def copy_of(folder: Path, target: Path, store: bool) -> Path:
    shutil.copytree(folder, target, ignore=None if store else shutil.ignore_patterns(".campana"))
    return target


def test_a_run_ends_with_an_answer_in_one_sentence(finished: Path, campana: Campana) -> None:
    report = report_of(finished)
    schema = json.loads(campana("describe", "--schema", "report", cwd=finished).stdout)
    Draft202012Validator(schema).validate(report)
    assert "lora" in report["answer"]["sentence"].lower()
    page = (finished / ".campana/reports/study/report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    assert report["answer"]["sentence"].split(";")[0][:40] in page


def test_a_finished_study_has_nothing_to_do(finished: Path, campana: Campana) -> None:
    assert set(plan_of(campana, finished)) == {"built"}
    before = (finished / ".campana/reports/study/report.json").read_bytes()
    begun = time.monotonic()
    done = campana("run", "study.yaml", cwd=finished)
    assert time.monotonic() - begun < 6  # Under 2 s on an idle machine; this bound only catches real work being done again.
    assert "0 to build" in done.stderr
    assert (finished / ".campana/reports/study/report.json").read_bytes() == before


def test_a_finished_study_is_told_where_nothing_can_be_written(finished: Path, campana: Campana, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "fixed", store=True)
    store = folder / ".campana"
    shutil.rmtree(store / "reports")
    command = [
        shutil.which("unshare") or "unshare",
        "--mount",
        "sh",
        "-c",
        f'mount --bind "{store}" "{store}" && mount -o remount,ro,bind "{store}" && "$@"',
        "sh",
    ]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("read-only mounts need root and unshare")
    run = [sys.executable, "-m", "campana", "run", "study.yaml"]
    plain = subprocess.run([*command, *run], cwd=folder, capture_output=True, text=True, check=False)
    assert plain.returncode == 2, plain.stderr
    assert report_of(finished)["answer"]["sentence"][:30] in plain.stdout.replace("\n", " ")
    assert "--output" in plain.stderr
    outside = subprocess.run([*command, *run, "--output", str(tmp_path / "page")], cwd=folder, capture_output=True, text=True, check=False)
    assert outside.returncode == 0, outside.stderr
    assert (tmp_path / "page/report.html").is_file()


def test_one_arms_learning_rate_reruns_that_arm_alone(finished: Path, campana: Campana, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "moved", store=True)  # A moved store is all hits.
    assert set(plan_of(campana, folder)) == {"built"}
    path = folder / "study.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("[3e-3, 1e-2]", "[3e-3, 2e-2]"), encoding="utf-8")
    missing = plan_of(campana, folder)["build"]
    assert missing
    assert all("method=lora" in label or label == "measure" for label in missing)
    assert not any("lr=0.003" in label for label in missing)  # That trial is the same as before.
    told = json.loads(campana("why", "study.yaml", "trial method=lora lr=0.02", "--json", cwd=folder).stdout)
    assert [difference["path"] for difference in told["differences"]] == ["learning_rate.value"]
    campana("run", "study.yaml", cwd=folder)
    assert set(plan_of(campana, folder)) == {"built"}


def test_show_leads_to_the_prompts_answers_and_verdicts(finished: Path, campana: Campana) -> None:
    shown = json.loads(campana("show", "study.yaml", "--json", cwd=finished).stdout)
    Draft202012Validator(json.loads(campana("describe", "--schema", "show", cwd=finished).stdout)).validate(shown)
    assert shown["schema"] == "campana.show/1"
    item = campana("show", "study.yaml", "--item", "q3", cwd=finished).stdout
    assert "Say" in item
    wrong = campana("show", "study.yaml", "--item", "q333", cwd=finished, expect=2)
    assert "q3" in wrong.stderr


def test_a_flipped_byte_is_found_set_aside_and_built_again(finished: Path, campana: Campana, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "damaged", store=True)
    campana("verify", cwd=folder)
    scores = next((folder / ".campana" / "objects").rglob("scores.jsonl"))
    scores.chmod(0o644)
    data = bytearray(scores.read_bytes())
    data[len(data) // 2] ^= 1
    scores.write_bytes(bytes(data))
    found = campana("verify", cwd=folder, expect=1)
    assert "scores.jsonl" in found.stdout + found.stderr
    campana("verify", "--repair", cwd=folder, expect=1)
    campana("run", "study.yaml", cwd=folder)
    campana("verify", cwd=folder)
    assert without_measured(report_of(folder)) == without_measured(report_of(finished))


def test_gc_takes_only_what_no_run_names(finished: Path, campana: Campana, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "swept", store=True)
    campana("gc", "--delete", cwd=folder)
    assert set(plan_of(campana, folder)) == {"built"}


def test_ten_kills_change_nothing_but_times(finished: Path, campana: Campana, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "killed", store=False)
    chance = random.Random(7)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-m", "campana.cli.app", "run", "study.yaml"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(chance.uniform(1.0, 12.0))
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills > 0
    campana("run", "study.yaml", cwd=folder)
    undisturbed, killed = without_measured(report_of(finished)), without_measured(report_of(folder))
    assert json.dumps(killed, sort_keys=True) == json.dumps(undisturbed, sort_keys=True)


def test_a_plan_loads_no_torch(finished: Path) -> None:
    code = (
        "import sys; from campana.cli.app import app; "
        "app(['plan', 'study.yaml'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=finished, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_the_inline_executor_gives_the_same_report(finished: Path, campana: Campana, tmp_path: Path) -> None:
    folder = copy_of(finished, tmp_path / "inline", store=False)
    campana("run", "study.yaml", "--executor", "inline", cwd=folder)
    assert without_measured(report_of(folder)) == without_measured(report_of(finished))
