"""A model of two layers, its tokenizer and prepared rows, made on the spot; and a tune job over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VOCAB = 211


def write_rows(path: Path, count: int, seed: int, shortest: int = 6, longest: int = 40) -> None:
    """Rows whose next token follows from the last (so that there is something to learn), supervised after a prompt."""
    from campana.data.prepared import RowWriter

    rng = np.random.default_rng(seed)
    ids, masks = [], []
    for _ in range(count):
        length = int(rng.integers(shortest, longest + 1))
        row = [int(rng.integers(4, VOCAB))]
        while len(row) < length:
            row.append(4 + (row[-1] * 7 + 3) % (VOCAB - 4))
        prompt = int(rng.integers(1, length - 1))
        ids.append(row)
        masks.append([False] * prompt + [True] * (length - prompt - 1) + [False])
    with RowWriter(path) as writer:
        writer.write(
            {
                "ids": ids,
                "supervised": masks,
                "num_supervised": [sum(mask) for mask in masks],
                "source": [f"made:{i}" for i in range(count)],
            }
        )


def write_model(folder: Path, *, tied: bool) -> Path:
    """A stored Llama of two layers with grouped queries, and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    from campana.models.quiet import quiet

    set_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with quiet():
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w3", eos_token="w2", pad_token="w0").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose output layer is its embedding."""
    return write_model(tmp_path_factory.mktemp("model"), tied=True)


@pytest.fixture(scope="session")
def untied_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with an output layer of its own."""
    return write_model(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training rows and 8 held-out ones."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "train.arrow", 40, seed=1)
    write_rows(folder / "validation.arrow", 8, seed=2)
    return folder


@pytest.fixture
def make_job(model_dir: Path, data_dir: Path, tmp_path: Path) -> Callable[..., Any]:
    """A tune job in a folder of its own; fields by keyword."""
    from campana.tuning.job import TuneJob
    from campana.tuning.methods.full import Full
    from campana.tuning.options import AdamW, Schedule

    def make(name: str = "run", **fields: Any) -> TuneJob:
        job = TuneJob(
            model_dir=model_dir,
            data_dir=data_dir,
            out_dir=tmp_path / name / "out",
            scratch_dir=tmp_path / name / "scratch",
            method=Full(),
            learning_rate=3e-3,
            epochs=2.0,
            batch_tokens=160,
            schedule=Schedule(warmup=0.1),
            optimizer=AdamW(weight_decay=0.01),
            max_grad_norm=1.0,
            precision="fp32",
            seed=0,
            budget=1.0,
            export=True,
            num_evaluations=3,
            micro_batch_tokens=90,
            checkpoint_seconds=1e9,
        )
        return replace(job, **fields)

    return make


def silent(done: float, total: float, unit: str, **figures: float | str) -> None:
    """A progress that tells nobody."""


@pytest.fixture
def progress() -> Callable[..., None]:
    """A progress that tells nobody."""
    return silent
