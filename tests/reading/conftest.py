"""Readers of tiny models, and their folders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny_readers  # found by the line above


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
