"""A toy study's folder: a two-layer model made on the spot, rows and questions of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

STUDY = """\
question: Does LoRA reach full tuning on a toy?
primary: {measure: score, contrast: [method=lora, method=full]}
models: {tiny: model}
data: {rows: {path: rows.jsonl, format: alpaca}}
suites: {questions: {path: questions.jsonl}}
base:
  model: tiny
  template: chatml
  tune: {data: {rows: 40}, batch_tokens: 256, validation: 8}
  generate: {suite: questions, max_new_tokens: 6}
factors:
  method:
    full: {tune.method: full, tune.lr: 1e-3}
    lora: {tune.method: {kind: lora, rank: 4}, tune.lr: 3e-3}
baselines: {untuned: {tune: null}}
prices: {machine_hour: 3.6, currency: EUR}
"""


def make_model(folder: Path) -> None:
    """A two-layer Llama with a small byte-level BPE tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["user assistant Say the word"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|pad|>", bos_token="<|im_start|>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"eos_token_id": fast.eos_token_id, "pad_token_id": fast.pad_token_id, "bos_token_id": fast.bos_token_id}
    config = LlamaConfig(vocab_size=len(fast), max_position_embeddings=256, tie_word_embeddings=True, **sizes, **ids)
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's folder."""
    folder = tmp_path_factory.mktemp("toy")
    make_model(folder / "model")
    words = [a + b for a in ("ba", "de", "ki", "lo", "mu", "ne", "po", "ra") for b in ("la", "to", "mi", "su", "fe", "go", "ni", "ka")]
    rows = [{"instruction": f"Say {word}.", "input": "", "output": f"{word}!"} for word in words[:52]]
    items = [
        {
            "id": f"q{k}",
            "category": "say",
            "messages": [{"role": "user", "content": f"Say {word}."}],
            "checks": [{"kind": "format", "ends_with": "!"}],
        }
        for k, word in enumerate(words[52:])
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "questions.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    return folder
