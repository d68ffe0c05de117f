"""A matrix that is embedding and output layer has one gradient: what autograd would have added up from two."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from campana.tuning.forward import Network
from campana.tuning.packs import Pack, packs_of

PADDING = 7


def model_of(kind: str, **options: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    options = {"tie_word_embeddings": True, "pad_token_id": PADDING, **options}
    config = AutoConfig.for_model(kind, vocab_size=50, head_dim=8, **shape, **options)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def two_packs() -> list[Pack]:
    """Of tokens that come again and again, the padding's among them, half of them supervised."""
    rows = [((np.arange(start, start + length) * 3) % 20, np.arange(length) % 2 == 1) for start, length in ((3, 12), (0, 9), (1, 14))]
    packs = packs_of(rows, 22)
    assert len(packs) == 2
    return packs


def reference(model: Any, packs: list[Pack], weight: float) -> list[torch.Tensor]:
    """Gradients by the model's own forward and plain autograd, each row alone."""
    for pack in packs:
        bounds = pack.segments.boundaries.tolist()
        for first, stop in pairwise(bounds):
            logits = model(input_ids=pack.ids[None, first:stop], use_cache=False).logits[0]
            mine = (pack.predicting >= first) & (pack.predicting < stop)
            wanted, targets = pack.predicting[mine] - first, pack.targets[mine]
            (torch.nn.functional.cross_entropy(logits[wanted], targets, reduction="sum") * weight).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "qwen2"])  # Gemma's embedding multiplies what it looks up
@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_gradients_are_those_of_plain_autograd(kind: str, factor: float, precision: str, tolerance: float) -> None:
    packs = two_packs()
    expected = reference(model_of(kind), packs, 0.1 * factor)
    model = model_of(kind)
    network = Network.of(model, precision)
    assert network.head.made is not None
    for pack in packs:
        (network.loss(pack, 0.1) * factor).backward()
    for (name, parameter), wanted in zip(model.named_parameters(), expected, strict=True):
        largest = max(1.0, wanted.abs().max().item())
        torch.testing.assert_close(parameter.grad, wanted, rtol=10 * tolerance, atol=tolerance * largest, msg=name)
    assert network.head.made.grad is None


def test_a_pack_without_a_supervised_token_is_no_stumbling_block() -> None:
    packs, model = two_packs(), model_of("llama")
    silent = replace(packs[0], predicting=packs[0].predicting[:0], targets=packs[0].targets[:0])
    network = Network.of(model, "fp32")
    network.loss(silent, 0.1).backward()
    for pack in packs:
        network.loss(pack, 0.1).backward()
    network.loss(silent, 0.1).backward()
    for parameter, wanted in zip(model.parameters(), reference(model_of("llama"), packs, 0.1), strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-5)


def test_only_what_is_tied_and_looks_tokens_up_once_is_taken() -> None:
    assert Network.of(model_of("llama", tie_word_embeddings=False), "fp32").head.made is None
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=1, n_head=2)  # looks positions up as well
    assert Network.of(GPT2LMHeadModel(config).eval(), "fp32").head.made is None
    shared = model_of("llama")
    shared.other_head = torch.nn.Linear(32, 50, bias=False)  # a third part of the gradient, which autograd adds by itself
    shared.other_head.weight = shared.lm_head.weight
    assert Network.of(shared, "fp32").head.made is None
    frozen = model_of("llama").requires_grad_(requires_grad=False)
    assert Network.of(frozen, "fp32").head.made is None
