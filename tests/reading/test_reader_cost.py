"""Operations of readers, against torch's own count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_readers import tiny_bert, tiny_roberta

from campana.reading.cost import ReaderShape


def tiny_albert() -> Any:
    """Three layers of the same weights."""
    from transformers import AlbertConfig, AlbertForQuestionAnswering

    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    return AlbertForQuestionAnswering(AlbertConfig(vocab_size=200, embedding_size=16, **sizes)).eval()


@pytest.mark.parametrize("make", [tiny_bert, tiny_roberta, tiny_albert])
def test_flops_equal_what_torch_counts(make: Callable[..., Any]) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = make()
    model.set_attn_implementation("eager")
    shape = ReaderShape.of(model)
    ids = torch.arange(10, 10 + 3 * 24).reshape(3, 24)
    sizes = {"num_tokens": 3 * 24, "sum_squared_lengths": 3 * 24 * 24}
    with FlopCounterMode(display=False) as forward, torch.inference_mode():
        model(input_ids=ids)
    assert shape.forward_flops(**sizes) == forward.get_total_flops()
    with FlopCounterMode(display=False) as training:
        sides = model(input_ids=ids)
        (sides.start_logits.sum() + sides.end_logits.sum()).backward()
    assert shape.training_flops(**sizes) == training.get_total_flops()


def test_layers_on_relative_positions_count_once() -> None:
    import torch
    from transformers import DebertaV2Config, DebertaV2ForQuestionAnswering

    positions: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "share_att_key": True}
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    model = DebertaV2ForQuestionAnswering(DebertaV2Config(vocab_size=200, **sizes, **positions)).eval()
    weights = [module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert ReaderShape.of(model).num_weights == sum(weights)
