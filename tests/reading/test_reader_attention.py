"""Compiled attention of readers: the same numbers as the encoder's own to within rounding, no padding seen, and only where it fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_readers import tiny_bert, tiny_roberta
from torch import Tensor

from campana.errors import ModelError
from campana.native.compiled import Compiled
from campana.reading.attention import NAMES, bounds_of, use_compiled

SIZES: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def albert() -> Any:
    from transformers import AlbertConfig, AlbertForQuestionAnswering

    torch.manual_seed(0)
    return AlbertForQuestionAnswering(AlbertConfig(vocab_size=200, embedding_size=16, **SIZES)).eval()


def electra() -> Any:
    from transformers import ElectraConfig, ElectraForQuestionAnswering

    torch.manual_seed(0)
    return ElectraForQuestionAnswering(ElectraConfig(vocab_size=200, embedding_size=16, **SIZES)).eval()


def modern_bert() -> Any:
    """Every other layer sees a window."""
    from transformers import ModernBertConfig, ModernBertForQuestionAnswering

    torch.manual_seed(0)
    places: dict[str, Any] = {"global_attn_every_n_layers": 2, "local_attention": 8, "pad_token_id": 0}
    return ModernBertForQuestionAnswering(ModernBertConfig(vocab_size=200, **SIZES, **places)).eval()


def deberta() -> Any:
    """Positions in the scores."""
    from transformers import DebertaV2Config, DebertaV2ForQuestionAnswering

    torch.manual_seed(0)
    places: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    return DebertaV2ForQuestionAnswering(DebertaV2Config(vocab_size=200, **SIZES, **places)).eval()


def mpnet() -> Any:
    """Positions in the scores, and attention of its own."""
    from transformers import MPNetConfig, MPNetForQuestionAnswering

    torch.manual_seed(0)
    return MPNetForQuestionAnswering(MPNetConfig(vocab_size=200, **SIZES)).eval()


def batch() -> tuple[Tensor, Tensor]:
    """Ids and mask of three rows."""
    tokens = torch.arange(10, 10 + 3 * 30).view(3, 30)
    return tokens, (torch.arange(30) < torch.tensor([[30], [17], [1]])).long()


def read(model: Any, tokens: Tensor, mask: Tensor, precision: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Hidden states of real tokens, and the gradients of the weights from them."""
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        hidden = model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state[mask.bool()].float()
    (hidden * torch.linspace(-1, 1, hidden.numel()).view(hidden.shape)).sum().backward()
    return hidden.detach(), [p.grad.clone() for p in model.base_model.parameters() if p.grad is not None]


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("make", [lambda: tiny_bert(**SIZES), tiny_roberta, albert, electra])
def test_it_computes_what_the_encoder_computes(either: Compiled, make: Callable[[], Any]) -> None:
    model, (slack, of_gradients) = make(), ((1e-3, 5e-3) if either.dtype == torch.bfloat16 else (1e-5, 1e-4))
    tokens, mask = batch()
    exact, grads = read(model, tokens, mask, torch.float32)
    near, near_grads = read(model, tokens, mask, either.dtype)
    assert use_compiled(model, either)
    assert model.config._attn_implementation == NAMES[either.dtype]
    found, found_grads = read(model, tokens, mask, either.dtype)
    assert distance(found, exact) < 1.5 * distance(near, exact) + slack
    for ours, theirs, wanted in zip(found_grads, near_grads, grads, strict=True):
        if float(wanted.norm()) > 1e-3 * max(float(g.norm()) for g in grads):
            assert distance(ours, wanted) < 1.5 * distance(theirs, wanted) + of_gradients


def test_numbers_of_another_type_are_computed_by_torch(compiled: Compiled) -> None:
    model = tiny_bert(**SIZES)
    expected, grads = read(model, *batch(), torch.float32)
    assert use_compiled(model, compiled)
    found, found_grads = read(model, *batch(), torch.float32)
    assert torch.allclose(found, expected, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(found_grads, grads, strict=True))


def test_a_row_has_the_same_bits_whatever_lies_in_the_padding(either: Compiled) -> None:
    model = tiny_bert(**SIZES).to(either.dtype)
    assert use_compiled(model, either)
    tokens, mask = batch()
    with torch.no_grad():
        together = model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
        other = model.base_model(input_ids=torch.where(mask.bool(), tokens, 5), attention_mask=mask).last_hidden_state
    assert torch.equal(together[mask.bool()], other[mask.bool()])


@pytest.mark.parametrize("make", [modern_bert, deberta, mpnet, lambda: tiny_bert(**{**SIZES, "hidden_size": 36})])
def test_an_encoder_that_attends_in_another_way_stays_as_it_was(either: Compiled, make: Callable[[], Any]) -> None:
    model = make()
    before = model.config._attn_implementation
    expected, _ = read(model, *batch(), torch.float32)
    assert not use_compiled(model, either)
    assert model.config._attn_implementation == before
    assert torch.equal(read(model, *batch(), torch.float32)[0], expected)


def test_nothing_is_used_where_there_is_no_compiled_code() -> None:
    model = tiny_bert(**SIZES)
    assert not use_compiled(model, None)
    assert model.config._attn_implementation not in NAMES.values()


def test_bounds_are_those_of_tokens_and_of_padding() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
    assert bounds_of(3, 4, attention_mask=mask).tolist() == [0, 4, 6, 8, 9, 12]
    assert bounds_of(2, 3).tolist() == [0, 3, 6]
    with pytest.raises(ModelError, match="before"):
        bounds_of(1, 3, attention_mask=torch.tensor([[0, 1, 1]]))
