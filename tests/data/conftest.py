"""Tiny tokenizers made on the spot, and files written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>"]
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}"
    "{% endif %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = [
    "Give three tips for staying healthy. Eat well, sleep enough and move every day.",
    "Human: what is two and three?\n\nAssistant: five",
    "### Instruction:\n### Response:\nuser assistant system\n",
    "请给出三个保持健康的建议。多吃蔬菜，早睡早起，每天运动。",
    "def add(a, b):\n    return a + b\n  \n\n",
]


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def make(chat_template: str | None = CHATML, *, spaced: bool = False, **special: str) -> Any:
        if spaced:
            backend = Tokenizer(models.BPE(byte_fallback=False, unk_token="<unk>"))
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
            backend.decoder = decoders.Metaspace(prepend_scheme="first")
            letters = [*map(chr, range(9, 127))]
            special_tokens = [*SPECIAL, "<unk>"]
            trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special_tokens, show_progress=False, initial_alphabet=letters)
        else:
            backend = Tokenizer(models.BPE())
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            backend.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False, initial_alphabet=alphabet)
        backend.train_from_iterator(TEXTS * 3, trainer)
        backend.add_tokens(
            [AddedToken("<think>", special=False, normalized=False), AddedToken("</think>", special=False, normalized=False)]
        )
        roles = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", **special}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    return make_tokenizer()


@pytest.fixture(scope="session")
def model_dir(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, rows: Iterable[Any]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not here")
    return folder
