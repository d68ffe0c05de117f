"""Where a processor has units for bf16, the emulation on which all others test the C files makes what they make, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from campana.native.build import BF16, missing
from campana.native.compiled import Compiled
from campana.native.elementwise import GATES


def numbers(*shape: int, seed: int, size: float = 1.0) -> Tensor:
    return (size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).bfloat16()


def everything(by: Compiled) -> list[Tensor]:
    """Results of every function of the library."""
    q, k, v, grad = (numbers(150, heads, 64, seed=seed) for seed, heads in enumerate((4, 2, 2, 4)))
    bounds = torch.tensor([0, 40, 150], dtype=torch.int32)
    out, lse = by.attention.forward(q, k, v, bounds, scale=0.125, window=32, causal=True)
    found = [out, lse, *by.attention.backward(grad, q, k, v, out, lse, bounds, scale=0.125, window=32, causal=True)]
    gate, up, slope = (numbers(40, 96, seed=seed, size=4.0) for seed in range(3))
    for kind in GATES:
        found += [by.elementwise.gated(gate, up, kind), *by.elementwise.gated_backward(slope, gate, up, kind)]
    weight = numbers(96, seed=3).float()
    normed, inverse = by.elementwise.norm(gate, weight, 1e-5)
    grad_x, grad_weight = by.elementwise.norm_backward(slope, gate, inverse, weight, learns=True)
    assert grad_weight is not None
    logits = numbers(9, 1001, seed=4, size=4.0)
    loss = by.elementwise.cross_entropy_(logits, torch.arange(9), 1.0)
    slabs = [(numbers(4, 2, 16, 64, seed=5), numbers(4, 2, 16, 64, seed=6))]
    pages = torch.tensor([[0, 1], [2, 3]], dtype=torch.int32)
    new = by.step.attend(q[:2], k[:2], v[:2], slabs, pages, torch.tensor([20, 5]), scale=0.125, window=None)
    return [*found, normed, inverse, grad_x, grad_weight, logits, torch.as_tensor(loss), new]


@pytest.mark.skipif(bool(missing(BF16)), reason="this processor has no units for bf16: nothing to compare with")
def test_it_makes_the_same_bits(compiled: Compiled, emulated: Compiled) -> None:
    for number, (found, expected) in enumerate(zip(everything(emulated), everything(compiled), strict=True)):
        assert torch.equal(found, expected), number


def test_what_it_makes_is_made_of_numbers(emulated: Compiled) -> None:
    assert all(found.isfinite().all() for found in everything(emulated))
