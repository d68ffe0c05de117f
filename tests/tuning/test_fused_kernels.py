"""Fused operations equal the plain ones, values and gradients, and are put in only where they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from campana.tuning.fused import LoraLinear, RmsNorm, SwiGlu
from campana.tuning.kernels import fuse
from campana.tuning.methods.full import Full
from campana.tuning.methods.lora import Lora


def tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def test_rms_norm_gradients() -> None:
    x, weight = tensor(2, 5, 7), tensor(7, seed=1)
    torch.testing.assert_close(RmsNorm.apply(x, weight, 1e-3), nn.functional.rms_norm(x, (7,), weight, 1e-3))
    assert torch.autograd.gradcheck(lambda x, w: RmsNorm.apply(x, w, 1e-3), (x, weight))
    assert torch.autograd.gradcheck(lambda x: RmsNorm.apply(x, weight.detach(), 1e-3), (x,))
    assert torch.autograd.gradcheck(lambda w: RmsNorm.apply(x.detach(), w, 1e-3), (weight,))


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
def test_a_fused_model_gives_the_same_gradients(model_dir: Path, method: Any, expected: dict[str, int]) -> None:
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
    plain, fused = gradients(lambda model: None), gradients(lambda model: done.append(fuse(model, lora=True)))
    assert dict(done[0]) == expected
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
            return nn.functional.rms_norm(x, (8,), 1.0 + self.weight, self.eps)

    model = nn.Sequential(OddRMSNorm())
    assert fuse(model, lora=False) == {}
    assert "forward" not in vars(model[0])
