"""Fused operations equal the plain ones, values and gradients, and are put in only where they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from campana.tuning.fused import LoraLinear, NarrowLoraLinear, RmsNorm, SwiGlu
from campana.tuning.kernels import fuse
from campana.tuning.methods.full import Full
from campana.tuning.methods.lora import Lora


def tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def test_rms_norm_gradients() -> None:
    x, weight = tensor(2, 5, 7), tensor(7, seed=1)
    torch.testing.assert_close(RmsNorm.apply(x, weight, 1e-3, torch.float64), nn.functional.rms_norm(x, (7,), weight, 1e-3))
    assert torch.autograd.gradcheck(lambda x, w: RmsNorm.apply(x, w, 1e-3, torch.float64), (x, weight))
    assert torch.autograd.gradcheck(lambda x: RmsNorm.apply(x, weight.detach(), 1e-3, torch.float64), (x,))
    assert torch.autograd.gradcheck(lambda w: RmsNorm.apply(x.detach(), w, 1e-3, torch.float64), (weight,))


def test_swiglu_gradients() -> None:
    gate, up = tensor(2, 3, 4), tensor(2, 3, 4, seed=1)
    torch.testing.assert_close(SwiGlu.apply(gate, up), nn.functional.silu(gate) * up)
    assert torch.autograd.gradcheck(SwiGlu.apply, (gate, up))


@pytest.mark.parametrize("with_bias", [False, True])
def test_lora_gradients(with_bias: bool) -> None:
    x, a, b = tensor(1, 6, 5), tensor(2, 5, seed=1), tensor(4, 2, seed=2)
    weight, bias = tensor(4, 5, seed=3).detach(), tensor(4, seed=4).detach() if with_bias else None
    expected = nn.functional.linear(x, weight, bias) + 0.7 * (x @ a.t() @ b.t())
    torch.testing.assert_close(LoraLinear.apply(x, weight, bias, a, b, 0.7), expected)
    assert torch.autograd.gradcheck(lambda x, a, b: LoraLinear.apply(x, weight, bias, a, b, 0.7), (x, a, b))
    assert torch.autograd.gradcheck(lambda a, b: LoraLinear.apply(x.detach(), weight, bias, a, b, 0.7), (a, b))


def load(model_dir: Path) -> Any:
    from campana.models.load import load_model

    return load_model(model_dir)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Full(), {"RmsNorm": 5, "SwiGlu": 2}),
        (Lora(rank=2), {"RmsNorm": 5, "SwiGlu": 2, "LoraLinear": 14}),
        (Lora(rank=2, dropout=0.1), {"RmsNorm": 5, "SwiGlu": 2}),
        (Lora(rank=2, dora=True), {"RmsNorm": 5, "SwiGlu": 2}),
    ],
    ids=["full", "lora", "lora with dropout", "dora"],
)
@pytest.mark.parametrize("by", ["torch", "compiled"])
def test_a_fused_model_gives_the_same_gradients(
    model_dir: Path, method: Any, expected: dict[str, int], by: str, request: pytest.FixtureRequest
) -> None:
    elementwise = request.getfixturevalue("compiled_fp32").elementwise if by == "compiled" else None

    def gradients(change: Callable[[Any], Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model = method.prepare(load(model_dir), 0).eval()
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        change(model)
        logits = model(input_ids=torch.arange(4, 40)[None], use_cache=False).logits
        logits.square().mean().backward()
        return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    done: list[Any] = []
    plain, fused = gradients(lambda model: None), gradients(lambda model: done.append(fuse(model, torch.float32, elementwise)))
    assert {name: count for name, count in done[0].items() if name != "NarrowLinear"} == expected
    assert bool(done[0]["NarrowLinear"]) is (by == "compiled" and expected.get("LoraLinear") is None)
    torch.testing.assert_close(fused[0], plain[0], rtol=1e-4, atol=1e-5)
    assert fused[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        atol = 1e-4 * float(gradient.abs().max())
        torch.testing.assert_close(fused[1][name], gradient, rtol=1e-3, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def test_what_computes_something_else_is_left_alone() -> None:
    class OddRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.full((8,), 0.5)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.rms_norm(x, (8,), 2.0 + self.weight, self.eps)

    model = nn.Sequential(OddRMSNorm())
    assert fuse(model, torch.float32) == {}
    assert "forward" not in vars(model[0])


def test_a_gate_that_clamps_large_numbers_is_left_alone() -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(16, 16, bias=False) for _ in range(3))
            self.act_fn = nn.SiLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down_proj(self.act_fn(self.gate_proj(x).clamp(max=10.0)) * self.up_proj(x).clamp(-10.0, 10.0))

    assert fuse(nn.Sequential(Clamped()), torch.float32) == {}


def test_a_norm_that_multiplies_by_one_more_than_its_weight_is_fused() -> None:
    class GemmaRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.linspace(-0.5, 0.5, 8)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.rms_norm(x, (8,), 1.0 + self.weight, self.eps)

    plain, model = GemmaRMSNorm(), nn.Sequential(GemmaRMSNorm())
    assert fuse(model, torch.float32) == {"RmsNorm": 1}
    x = torch.linspace(-2, 3, 40).sin().view(5, 8)
    for module in (plain, model):
        module(x).square().sum().backward()
    torch.testing.assert_close(model(x), plain(x))
    torch.testing.assert_close(model[0].weight.grad, plain.weight.grad)


def test_a_norm_that_rounds_last_is_fused_for_bf16_too_and_keeps_no_wide_copy() -> None:
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

    plain, model = Gemma3RMSNorm(64), nn.Sequential(Gemma3RMSNorm(64))
    assert fuse(model, torch.bfloat16) == {"RmsNorm": 1}
    kept: list[torch.Tensor] = []

    def keep(saved: torch.Tensor) -> torch.Tensor:
        kept.append(saved)
        return saved

    x = [tensor(5, 64).detach().bfloat16().requires_grad_() for _ in range(2)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        found = model(x[0])
    expected = plain(x[1])
    assert found.dtype == torch.bfloat16
    assert {saved.dtype for saved in kept if saved.numel() == 5 * 64} == {torch.bfloat16}
    torch.testing.assert_close(found, expected)
    for out in (found, expected):
        out.float().square().sum().backward()
    torch.testing.assert_close(x[0].grad, x[1].grad)


def test_a_norm_hands_on_the_type_of_the_next_product() -> None:
    x = torch.linspace(-2, 3, 40).sin().view(5, 8).requires_grad_()
    narrow = RmsNorm.apply(x, torch.ones(8), 1e-6, torch.bfloat16)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow, nn.functional.rms_norm(x, (8,), eps=1e-6).bfloat16())
    narrow.float().square().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_a_narrow_lora_layer_is_as_near_to_fp32_as_its_rounding() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).mul_(scale)

    x, weight, a, b = drawn(2, 30, 64), drawn(48, 64, scale=0.125).bfloat16(), drawn(8, 64, scale=0.1), drawn(48, 8, scale=0.1)
    grad, bias = drawn(2, 30, 48), drawn(48).bfloat16()

    def run(function: Any, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        leaves = [t.clone().requires_grad_() for t in (x, a, b)]
        out = function.apply(leaves[0].to(dtype), weight.to(dtype), bias.to(dtype), leaves[1], leaves[2], 0.5)
        out.float().backward(grad)
        return (out.detach().float(), *(leaf.grad for leaf in leaves if leaf.grad is not None))

    for found, exact in zip(run(NarrowLoraLinear, torch.bfloat16), run(LoraLinear, torch.float32), strict=True):
        assert found.dtype == torch.float32
        assert float((found - exact).norm() / exact.norm()) < 0.01
