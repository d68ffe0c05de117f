"""`campana read train`: a reader from files, killed and gone on with, and what is wrong told at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_questions import world

from campana.reading.files import write_examples
from campana.reading.triples import write_families

Campana = Callable[..., tuple[int, str, str]]


@pytest.fixture
def words(save_encoder: Callable[..., Path], tmp_path: Path) -> list[str]:
    """The command without --output."""
    encoder = save_encoder()
    for kind in ("train", "held_out"):
        write_examples(tmp_path / f"{kind}.jsonl", world(f"{kind}-", kind)[0])
    write_families(tmp_path / "made.jsonl", world("train-", "train")[1])
    told = ["read", "train", str(tmp_path / "train.jsonl"), "--held-out", str(tmp_path / "held_out.jsonl"), "--model", str(encoder)]
    told += ["--made", str(tmp_path / "made.jsonl"), "--objective", '{"kind": "spancl", "weight": 0.1}', "--batch-tokens", "256"]
    return [*told, "--spans-steps", "30", "--steps", "30", "--spans-lr", "5e-3", "--lr", "5e-3"]


def test_a_reader_is_trained_and_can_be_asked(words: list[str], campana: Campana, tmp_path: Path) -> None:
    out = tmp_path / "reader"
    code, _, err = campana(*words, "-o", str(out))
    assert code == 0, err
    assert "phase 2 of 2: 100% of 30 steps" in err
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("reader")) == ["reader"]
    write_examples(tmp_path / "test.jsonl", world("test-", "test")[0])
    code, table, err = campana("read", "score", str(tmp_path / "test.jsonl"), "--model", str(out))
    assert code == 0, err
    assert "fitted" in table
    code, _, err = campana(*words, "-o", str(out))
    assert code == 2
    assert "exists already" in err


def test_a_killed_run_goes_on_to_the_same_reader(words: list[str], campana: Campana, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the law is for one number of threads

    def command(output: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "campana", *words, "-o", output]
        return subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True)

    undisturbed = command(str(whole))
    _, err = undisturbed.communicate()
    assert undisturbed.returncode == 0, err
    run = command(str(killed))
    done = tmp_path / "killed.part" / "phase1" / "done"
    for _ in range(1200):
        if done.is_dir() or run.poll() is not None:
            break
        time.sleep(0.05)
    assert run.poll() is None, "it ended before it could be killed"
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert not killed.exists()
    code, _, err = campana(*words, "-o", str(killed), "--seed", "1")
    assert code == 2
    assert "other files or options" in err
    again = command(str(killed))
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert "phase 1" not in err
    for path in sorted(whole.iterdir()):
        assert path.read_bytes() == (killed / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--objective", "spncl"), "spancl"),
        (("--objective", "{kind: spancl}"), "not JSON"),
        (("--precision", "fp16"), "precision"),
        (("--made-as", "plain"), "made_as"),
        (("--plain-steps", "31"), "plain_steps"),
    ],
)
def test_what_is_wrong_is_told_at_once(words: list[str], campana: Campana, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    code, _, err = campana(*words, "-o", str(tmp_path / "reader"), *more)
    assert code == 2
    assert said in err
    assert not (tmp_path / "reader.part").exists()


def test_documents_on_both_sides_are_refused_before_anything_is_fetched(words: list[str], campana: Campana, tmp_path: Path) -> None:
    write_examples(tmp_path / "held_out.jsonl", world("train-", "train")[0])
    code, _, err = campana(*words, "-o", str(tmp_path / "reader"))
    assert code == 2
    assert "both trained on and held out" in err
    assert not (tmp_path / "reader.part").exists()


def test_held_out_questions_of_one_kind_are_refused_before_the_first_phase(words: list[str], campana: Campana, tmp_path: Path) -> None:
    write_examples(tmp_path / "held_out.jsonl", [example for example in world("held-", "held")[0] if example.answerable])
    code, _, err = campana(*words, "-o", str(tmp_path / "reader"))
    assert code == 2
    assert "a threshold cannot be fitted" in err
    assert not (tmp_path / "reader.part").exists()


def test_a_run_that_has_trained_nothing_binds_nobody(words: list[str], campana: Campana, tmp_path: Path) -> None:
    part = tmp_path / "reader.part"
    part.mkdir()
    (part / "recipe.json").write_text("{}", encoding="utf-8")
    code, _, err = campana(*words, "-o", str(tmp_path / "reader"))
    assert code == 0, err
