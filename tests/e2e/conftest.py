"""A whole study that runs in seconds: a two-layer model made on the spot, rows and questions of its own, the real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STUDY = """\
question: Does LoRA reach full tuning on a toy?
primary: {measure: score, contrast: [method=lora, method=full]}
seeds: [0, 1]
models: {tiny: model}
data: {rows: {path: rows.jsonl, format: alpaca}}
suites: {questions: {path: questions.jsonl}}
base:
  model: tiny
  template: chatml
  tune:
    data: {rows: 40}
    epochs: 2
    batch_tokens: 256
    validation: 8
    checkpoint_seconds: 0
  generate: {suite: questions, max_new_tokens: 6}
factors:
  method:
    full: {tune.method: full, tune.lr: {search: [1e-3, 3e-3], budget: 0.5}}
    lora: {tune.method: {kind: lora, rank: 4}, tune.lr: {search: [3e-3, 1e-2], budget: 0.5}}
baselines: {untuned: {tune: null}}
prices: {machine_hour: 1.5, currency: EUR}
"""

Campana = Callable[..., subprocess.CompletedProcess[str]]


def make_model(folder: Path) -> None:
    """A two-layer Llama with a small byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["user assistant Say the word and number after it"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", bos_token="<|im_start|>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=fast.bos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def template_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder, made once."""
    folder = tmp_path_factory.mktemp("toy")
    make_model(folder / "model")
    words = [a + b for a in ("ba", "de", "ki", "lo", "mu", "ne", "po", "ra") for b in ("la", "to", "mi", "su", "fe", "go", "ni", "ka")]
    rows = [{"instruction": f"Say {word}.", "input": "", "output": f"{word}!"} for word in words[:52]]
    items = [
        {
            "id": f"q{number}",
            "category": "even" if number % 2 == 0 else "odd",
            "messages": [{"role": "user", "content": f"Say {word}."}],
            "checks": [{"kind": "format", "ends_with": "!"}, {"kind": "length", "unit": "words", "at_most": 2}],
        }
        for number, word in enumerate(words[52:])
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "questions.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def campana() -> Campana:
    """Run a command as a person would; one thread, so that numbers do not depend on the machine's load."""

    def call(*words: str | Path, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "random"}
        done = subprocess.run(
            [sys.executable, "-m", "campana", *map(str, words)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture(scope="session")
def finished(template_folder: Path, campana: Campana) -> Path:
    """The folder after one undisturbed run."""
    campana("run", "study.yaml", cwd=template_folder)
    return template_folder
