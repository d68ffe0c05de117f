"""Readers of tiny models, and their folders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny_readers  # found by the line above
from toy_questions import WHOLE, world

from campana.reading.files import write_examples
from campana.reading.training.job import ReadTrainJob
from campana.reading.training.objectives.cross_entropy import CrossEntropy
from campana.reading.triples import write_families
from campana.tuning.options import AdamW, Schedule


@pytest.fixture(scope="session")
def bert_reader() -> Any:
    """A reader of a random BERT."""
    from campana.reading.reader import Reader

    return Reader.of(tiny_readers.tiny_bert(), tiny_readers.word_pieces())


@pytest.fixture(scope="session")
def roberta_reader() -> Any:
    """A reader of a random RoBERTa, whose tokenizer leaves leading spaces in its offsets."""
    from campana.reading.reader import Reader

    return Reader.of(tiny_readers.tiny_roberta(), tiny_readers.byte_level())


@pytest.fixture
def save_encoder(tmp_path: Path) -> Callable[..., Path]:
    """Write a tiny encoder's folder, without a span head."""

    def save(name: str = "encoder", seed: int = 0) -> Path:
        folder = tmp_path / name
        tiny_readers.tiny_bert(seed, initializer_range=0.02).base_model.save_pretrained(folder)
        tokenizer = tiny_readers.word_pieces()
        tokenizer.backend_tokenizer.enable_truncation(16)
        tokenizer.backend_tokenizer.enable_padding(length=16)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def study_folder(save_encoder: Callable[..., Path], tmp_path: Path) -> Callable[[str], Path]:
    """Write a study file and what `toy_questions.STUDY` names: an encoder, three documents of questions, made counterparts."""

    def write(text: str) -> Path:
        save_encoder()
        for kind in ("train", "held_out", "test"):
            write_examples(tmp_path / f"{kind}.jsonl", world(f"{kind}-", kind)[0])
        write_families(tmp_path / "made.jsonl", world("train-", "train")[1])
        (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture(scope="session")
def reader_folder(tmp_path_factory: pytest.TempPathFactory, bert_reader: Any) -> Path:
    """The folder of the random BERT's reader."""
    from campana.reading.reader import save_reader

    folder = tmp_path_factory.mktemp("readers") / "bert"
    save_reader(folder, tiny_readers.tiny_bert(), tiny_readers.word_pieces(), bert_reader)
    return folder


@pytest.fixture
def campana(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: (exit code, stdout, stderr)."""
    from campana.cli.app import main

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["campana", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        out, err = capsys.readouterr()
        return (code if isinstance(code, int) else 0 if code is None else 1), out, err

    return run


@pytest.fixture
def job(save_encoder: Callable[..., Path], tmp_path: Path) -> Callable[..., ReadTrainJob]:
    start = save_encoder()

    def make(name: str = "run", **changes: Any) -> ReadTrainJob:
        examples, families = world()
        told: dict[str, Any] = {
            "start_dir": start,
            "examples": examples,
            "families": families,
            "held_out": [replace(example, id="held " + example.id, document="held out") for example in examples[:6]],
            "out_dir": tmp_path / name / "out",
            "scratch_dir": tmp_path / name / "scratch",
            "objective": CrossEntropy(),
            "steps": 6,
            "plain_steps": 2,
            "questions": "all",
            "batch_tokens": 100,
            "learning_rate": 3e-3,
            "schedule": Schedule(warmup=0.1),
            "optimizer": AdamW(weight_decay=0.01),
            "max_grad_norm": 1.0,
            "dropout": 0.1,
            "precision": "fp32",
            "seed": 0,
            "settings": WHOLE,
            "fit": None,
            "num_evaluations": 2,
            "checkpoint_seconds": 1e9,
        }
        return ReadTrainJob(**told | changes)

    return make
