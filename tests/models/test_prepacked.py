"""Packed weights make the bits of plain ones, take no second copy, and leave the model as it was."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import nn

from campana.models.prepacked import prepacked


class Layers(nn.Module):
    """Two layers of one shape, one with a bias, and an output layer that is the embedding too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(96, 64)
        self.first, self.second = nn.Linear(64, 64, bias=False), nn.Linear(64, 64)
        self.output = nn.Linear(64, 96, bias=False)
        self.output.weight = self.embedding.weight


@pytest.fixture
def layers() -> Layers:
    torch.manual_seed(0)
    return Layers().bfloat16().requires_grad_(False)


def is_packed_here() -> bool:
    """Whether this machine has bf16 products whose weights can be packed."""
    with prepacked(layer := nn.Linear(64, 64).bfloat16()) as weights:
        weights.product(layer, torch.zeros(32, 64).bfloat16())
        return layer.weight.untyped_storage().nbytes() == 2


@pytest.mark.parametrize("num_rows", [1, 32, 37, 352])
def test_the_bits_are_those_of_plain_weights(layers: Layers, num_rows: int) -> None:
    x = torch.randn(num_rows, 64).bfloat16()
    linears = [layers.first, layers.second, layers.output]
    expected = [linear(x) for linear in linears]
    before = [p.clone() for p in layers.parameters()]
    with prepacked(layers) as weights:
        for _ in range(2):
            assert all(torch.equal(weights.product(linear, x), wanted) for linear, wanted in zip(linears, expected, strict=True))
    assert all(torch.equal(now, then) for now, then in zip(layers.parameters(), before, strict=True))
    assert layers.output.weight is layers.embedding.weight
    assert all(torch.equal(linear(x), wanted) for linear, wanted in zip(linears, expected, strict=True))


def test_a_plain_weight_goes_but_one_that_others_read(layers: Layers) -> None:
    if not is_packed_here():
        pytest.skip("this processor has no bf16 products whose weights can be packed")
    x = torch.randn(32, 64).bfloat16()
    with contextlib.suppress(KeyboardInterrupt), prepacked(layers) as weights:
        for linear in (layers.first, layers.second, layers.output):
            weights.product(linear, x)
        assert [p.untyped_storage().nbytes() for p in (layers.first.weight, layers.second.weight)] == [2, 2]
        assert layers.first.weight.shape == (64, 64)
        assert layers.embedding.weight.untyped_storage().nbytes() == 2 * 96 * 64
        raise KeyboardInterrupt
    assert layers.first.weight.untyped_storage().nbytes() == 2 * 64 * 64


def test_other_types_stay_as_they_are() -> None:
    layer, x = nn.Linear(64, 64), torch.randn(32, 64)
    with prepacked(layer) as weights:
        assert torch.equal(weights.product(layer, x), layer(x))
        assert layer.weight.untyped_storage().nbytes() == 4 * 64 * 64


@pytest.mark.parametrize("fault", [RuntimeError("no bf16 here"), NotImplementedError("no oneDNN here"), None])
def test_where_packed_weights_cannot_be_had_or_round_otherwise_plain_ones_are_used(
    layers: Layers, monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    """`fault` None: the product is made, and differs in its last bits."""

    def product(x: torch.Tensor, packed: torch.Tensor, bias: Any) -> torch.Tensor:
        if fault is not None:
            raise fault
        return nn.functional.linear(x.float(), packed.to_dense().float(), bias).bfloat16() + 2.0**-6

    monkeypatch.setattr("campana.models.prepacked._product", product)
    x = torch.randn(40, 64).bfloat16()
    with prepacked(layers) as weights:
        found = weights.product(layers.first, x)
        assert layers.first.weight.untyped_storage().nbytes() == 2 * 64 * 64
    assert torch.equal(found, layers.first(x))
