"""The compiled norms, gates, rotary positions and softmax are torch's, computed in fp32 and rounded once, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from campana.native.compiled import Compiled

ROUNDING = {torch.bfloat16: 0.0025, torch.float32: 1e-6}
"""Of numbers that are rounded to a type once: relative, of a tensor's norm."""


def numbers(*shape: int, kind: torch.dtype, seed: int = 0, size: float = 1.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * size).to(kind)


def assert_near(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert float((found.double() - wanted.double()).norm() / wanted.double().norm()) < ROUNDING[found.dtype]


@pytest.mark.parametrize("size", [32, 64, 256])
def test_rotary_turns_heads_there_and_back(either: Compiled, size: int) -> None:
    x, grad = numbers(19, 3, size, kind=either.dtype), numbers(19, 3, size, seed=1, kind=either.dtype)
    cos, sin = numbers(19, size, seed=2, kind=torch.float32), numbers(19, size, seed=3, kind=torch.float32)  # halves need not agree
    wide = x.float().requires_grad_()
    turned = torch.cat([-wide[..., size // 2 :], wide[..., : size // 2]], -1)
    expected = wide * cos[:, None] + turned * sin[:, None]
    (slope,) = torch.autograd.grad(expected, wide, grad.float())
    assert_near(either.elementwise.rotary(x, cos, sin), expected.detach())
    assert_near(either.elementwise.rotary(x.transpose(0, 1).contiguous().transpose(0, 1), cos, sin), expected.detach())
    assert_near(either.elementwise.rotary(grad, cos, sin, back=True), slope)


@pytest.mark.parametrize(("kind", "activation"), [("silu", nn.SiLU()), ("gelu_tanh", nn.GELU(approximate="tanh"))])
@pytest.mark.parametrize("size", [0.1, 1.0, 20.0])
def test_gates(either: Compiled, kind: str, activation: nn.Module, size: float) -> None:
    gate, up, grad = (numbers(7, 48, seed=seed, size=each, kind=either.dtype) for seed, each in enumerate((size, 1.0, 1.0)))
    wide = [x.float().requires_grad_() for x in (gate, up)]
    expected = activation(wide[0]) * wide[1]
    assert_near(either.elementwise.gated(gate, up, kind), expected.detach())
    for found, wanted in zip(
        either.elementwise.gated_backward(grad, gate, up, kind), torch.autograd.grad(expected, wide, grad.float()), strict=True
    ):
        assert_near(found, wanted)


def test_gates_of_numbers_without_end(either: Compiled) -> None:
    gate = torch.tensor([-torch.inf, -3e38, -1e30, -100, 100, 3e38, torch.inf, torch.nan] * 2).to(either.dtype)
    out = either.elementwise.gated(gate, torch.ones(16).to(either.dtype), "silu")[:8].float()
    assert out[1:4].abs().max() < 10  # exactly -0 in the limit; what is left of -3e38 is 2^-126 of it
    assert torch.equal(out[4:7], gate[4:7].float())
    assert out[7].isnan()


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 64, 150])
def test_norms(either: Compiled, kind: torch.dtype, tokens: int) -> None:
    if kind not in (torch.float32, either.dtype):  # narrower than what is written
        assert not either.elementwise.norms(torch.zeros(1, 48, dtype=kind))
        return
    x, weight, grad = (
        numbers(2, tokens, 48, size=3.0, kind=kind),
        numbers(48, seed=1, kind=torch.float32),
        numbers(2, tokens, 48, seed=2, kind=either.dtype),
    )
    wide = [x.float().requires_grad_(), weight.clone().requires_grad_()]
    expected = nn.functional.rms_norm(wide[0], (48,), wide[1], 1e-3)
    slopes = torch.autograd.grad(expected, wide, grad.float())
    out, inverse = either.elementwise.norm(x, weight, 1e-3)
    grad_x, grad_weight = either.elementwise.norm_backward(grad, x, inverse, weight, learns=True)
    assert_near(out, expected.detach())
    assert grad_x.dtype == kind
    assert_near(grad_x, slopes[0])
    assert grad_weight is not None
    assert_near(grad_weight, slopes[1])
    assert either.elementwise.norm_backward(grad, x, inverse, weight, learns=False)[1] is None


@pytest.mark.parametrize("words", [5, 16, 1001, 49152])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_cross_entropy_and_its_gradient(either: Compiled, words: int, scale: float) -> None:
    logits = numbers(9, words, size=4.0, kind=either.dtype)
    targets = torch.randint(words, (9,), generator=torch.Generator().manual_seed(1))
    wide = logits.double().requires_grad_()
    expected = nn.functional.cross_entropy(wide * scale, targets, reduction="sum")
    (slope,) = torch.autograd.grad(expected, wide)
    loss = either.elementwise.cross_entropy_(logits, targets, scale)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_near(logits, slope / scale)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_loss_that_is_no_number_is_told(either: Compiled, bad: float) -> None:
    logits = numbers(2, 100, kind=either.dtype)
    logits[1, 40] = bad
    assert either.elementwise.cross_entropy_(logits, torch.tensor([3, 5]), 1.0).isnan()


def test_the_bits_do_not_depend_on_threads(either: Compiled) -> None:
    x, weight, grad = (
        numbers(500, 64, kind=torch.float32),
        numbers(64, seed=1, kind=torch.float32),
        numbers(500, 64, seed=2, kind=either.dtype),
    )
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            out, inverse = either.elementwise.norm(x, weight, 1e-5)
            grad_x, grad_weight = either.elementwise.norm_backward(grad, x, inverse, weight, learns=True)
            logits = numbers(20, 300, kind=either.dtype)
            loss = either.elementwise.cross_entropy_(logits, torch.arange(20), 1.0)
            results.append([out, grad_x, grad_weight, loss, logits])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
