"""Tiny real models: two layers, a few hundred tokens, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 300 tokens with SmolLM2's special tokens and template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(["the quick brown fox jumps over the lazy dog", "user assistant system"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_llama(seed: int = 0, **changes: Any) -> Any:
    """A two-layer Llama with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fields: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**fields, **changes})).eval()


@pytest.fixture
def make_llama() -> Callable[..., Any]:
    """The maker of a two-layer Llama; keyword arguments change its configuration."""
    return tiny_llama


@pytest.fixture
def make_tokenizer() -> Callable[[], Any]:
    """The maker of a 300-token tokenizer."""
    return tiny_tokenizer


@pytest.fixture
def save_tiny(tmp_path: Path) -> Callable[..., Path]:
    """Write a tiny model's folder; keyword arguments change its configuration."""

    def save(name: str = "tiny", seed: int = 0, **changes: Any) -> Path:
        folder = tmp_path / name
        tiny_llama(seed, **changes).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return save
