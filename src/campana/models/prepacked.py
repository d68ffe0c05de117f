"""Weights of linear layers in the order in which oneDNN's bf16 products read them, while a model is lent.

    with prepacked(model) as weights:
        out_RO = weights.product(linear, x_RI)       # the bits of nn.functional.linear(x_RI, linear.weight, linear.bias)

Else each product lays its weight out anew, in passing. With weights that come out of memory, as those of a whole pass do, 32 rows are
1.36 times as fast so, 128 rows 1.14 times, 384 rows 1.06 and 768 no faster (`benchmarks/products.py`). A layer's own copy goes as its
packed one is made, at the layer's first product, so a model takes no more memory; but for a weight that others read too, a tied
embedding's.

Shapes: R rows, I features in, O out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

TRIED_ROWS = 32
"""Of random numbers, of which a packed weight must make the same bits as the plain one, once for each shape."""


class Prepacked:
    """The packed weights of one model's linear layers. Made by `prepacked`."""

    def __init__(self, model: nn.Module) -> None:
        self._holders = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
        self._packed: dict[nn.Linear, Tensor | None] = {}
        self._alone: list[nn.Linear] = []
        """Layers whose plain weight has gone."""
        self._same: dict[tuple[torch.Size, bool], bool] = {}
        """Shape, and whether there is a bias -> whether packed weights make the same bits."""

    def product(self, module: nn.Linear, x_RI: Tensor) -> Tensor:
        """(R, O). The weight is packed at the layer's first product, where that makes the same bits."""
        if module not in self._packed:
            self._packed[module] = self._pack(module)
        packed = self._packed[module]
        bias = _bias(module)
        return nn.functional.linear(x_RI, module.weight, bias) if packed is None else _product(x_RI, packed, bias)

    def give_back(self) -> None:
        """Every layer has its plain weight again, of the same bits."""
        while self._alone:  # one by one: no second model lies beside the first
            module = self._alone.pop()
            packed = self._packed.pop(module)
            assert packed is not None
            module.weight.data = packed.to_dense()
        self._packed.clear()

    @torch.no_grad()
    def _pack(self, module: nn.Linear) -> Tensor | None:
        weight, bias = module.weight, _bias(module)
        if weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
            return None
        kind = (weight.shape, bias is None)
        if kind not in self._same:
            self._same[kind] = _makes_the_same_bits(weight, bias)
        if not self._same[kind]:
            return None
        packed = _packed(weight)
        if self._holders[id(weight)] == 1:
            weight.data = weight.new_empty(1).expand(weight.shape)  # type and shape are still asked for
            self._alone.append(module)
        return packed


def _bias(module: nn.Linear) -> Tensor | None:
    """torch types the bias as always there."""
    return module.bias


def _makes_the_same_bits(weight: Tensor, bias_O: Tensor | None) -> bool:
    x_RI = torch.randn(TRIED_ROWS, weight.shape[1], generator=torch.Generator().manual_seed(0)).bfloat16()
    try:
        return torch.equal(_product(x_RI, _packed(weight), bias_O), nn.functional.linear(x_RI, weight, bias_O))
    except (AttributeError, NotImplementedError, RuntimeError):  # a torch without oneDNN, or cores without bf16 products
        return False


def _packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    return packed


def _product(x_RI: Tensor, packed: Tensor, bias_O: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x_RI, packed, bias_O, "none", [], "")
    return product


@contextmanager
def prepacked(model: nn.Module) -> Generator[Prepacked]:
    """Within it the model's linear layers may only be called through `product`."""
    weights = Prepacked(model)
    try:
        yield weights
    finally:
        weights.give_back()
