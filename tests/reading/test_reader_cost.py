"""Operations of readers, against torch's own count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tiny_readers import tiny_bert, tiny_roberta

from campana.reading.cost import EncoderShape


@pytest.mark.parametrize("make", [tiny_bert, tiny_roberta])
def test_flops_equal_what_torch_counts(make: Callable[..., Any]) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = make()
    model.set_attn_implementation("eager")
    shape = EncoderShape.of(model)
    ids = torch.arange(10, 10 + 3 * 24).reshape(3, 24)
    sizes = {"num_tokens": 3 * 24, "sum_squared_lengths": 3 * 24 * 24}
    with FlopCounterMode(display=False) as forward, torch.inference_mode():
        model(input_ids=ids)
    assert shape.forward_flops(**sizes) == forward.get_total_flops()
    with FlopCounterMode(display=False) as training:
        sides = model(input_ids=ids)
        (sides.start_logits.sum() + sides.end_logits.sum()).backward()
    assert shape.training_flops(**sizes) == training.get_total_flops()
