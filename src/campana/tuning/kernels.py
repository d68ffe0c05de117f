"""Puts fused operations into a model: norms, gated MLPs, LoRA layers, matrices that learn. Each is compared with the original first.

    fuse(model, torch.float32)      # {"RmsNorm": 61, "SwiGlu": 30, "LoraLinear": 210}
    unfuse(model)

A module that computes anything else (another activation, DoRA, dropout) is left as it is. Only `forward` of the instance is replaced;
weights, names and files stay the same.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from campana.models.layers import OFFSETS, Forward, agrees, gate_kind, norm_epsilon
from campana.native.autograd import CompiledGate, CompiledNorm
from campana.tuning.again import makes_again
from campana.tuning.fused import LoraLinear, NarrowLinear, NarrowLoraLinear, RmsNorm, SwiGlu

if TYPE_CHECKING:
    from campana.native.elementwise import Elementwise


def fuse(model: nn.Module, compute: torch.dtype, elementwise: Elementwise | None = None) -> Counter[str]:
    """Replace what can be replaced, in place; returns how many of each. `compute`: the type that matrix products will be made in.

    `elementwise`: what computes norms and gates on a CPU, where `compute` is its type; None: torch.
    """
    done: Counter[str] = Counter()
    parts: set[nn.Module] = set()  # of fused LoRA layers, which read their weights alone
    for module in model.modules():
        if module in parts:
            continue
        candidates = (
            *(("RmsNorm", _norm(module, offset, compute, elementwise)) for offset in OFFSETS),
            ("SwiGlu", _mlp(module, elementwise)),
            ("LoraLinear", _lora(module, compute)),
            ("NarrowLinear", _linear(module, compute, reads_again=elementwise is not None)),
        )
        for name, candidate in candidates:
            if candidate is not None and all(agrees(module, candidate, dtype) for dtype in _types(name, compute)):
                module.forward = candidate
                done[name] += 1
                if name == "LoraLinear":
                    parts.update(module.modules())
                break
    return done


def unfuse(model: nn.Module) -> None:
    """Let every module compute as its class does again, in place."""
    for module in model.modules():
        module.__dict__.pop("forward", None)


def _norm(module: Any, offset: float, compute: torch.dtype, elementwise: Elementwise | None) -> Forward | None:
    """`offset`: what is added to the weight; Gemma's norms multiply by 1 + weight."""
    eps = norm_epsilon(module)
    if eps is None or module.weight.dtype != torch.float32:
        return None

    def forward(hidden_states: Tensor) -> Tensor:
        wide = hidden_states.dtype == torch.float32
        result = compute if wide else hidden_states.dtype
        by_compiled = elementwise is not None and result == elementwise.dtype and elementwise.norms(hidden_states)
        if not wide and not offset and not by_compiled:  # the original rounds before it multiplies by the weight: keep its rounding
            return type(module).forward(module, hidden_states)
        weight = module.weight + offset if offset else module.weight
        if elementwise is not None and by_compiled:
            made = CompiledNorm.apply(hidden_states, weight, eps, elementwise)
            norm, x, scale = elementwise.norm, hidden_states.detach(), weight.detach()
            return makes_again(made, lambda: norm(x, scale, eps)[0])
        return RmsNorm.apply(hidden_states, weight, eps, result)  # pyright: ignore[reportReturnType] (torch types apply as Any or None)

    return forward


def _mlp(module: Any, elementwise: Elementwise | None) -> Forward | None:
    kind = gate_kind(module)
    if kind is None or (kind != "silu" and elementwise is None):
        return None

    def forward(x: Tensor) -> Tensor:
        gate, up = module.gate_proj(x), module.up_proj(x)
        if elementwise is not None and elementwise.gates(gate):
            made = CompiledGate.apply(gate, up, kind, elementwise)
            return module.down_proj(makes_again(made, partial(elementwise.gated, gate.detach(), up.detach(), kind)))
        return module.down_proj(SwiGlu.apply(gate, up) if kind == "silu" else module.act_fn(gate) * up)

    return forward


def _lora(module: Any, compute: torch.dtype) -> Forward | None:
    from peft.tuners.lora.layer import Linear

    if type(module) is not Linear or type(module.base_layer) is not nn.Linear or len(module.active_adapters) != 1:
        return None
    (name,) = module.active_adapters
    parts: Any = module
    base, a, b, scale = parts.base_layer, parts.lora_A[name], parts.lora_B[name], float(parts.scaling[name])
    plain = name not in module.lora_variant and isinstance(module.lora_dropout[name], nn.Identity)
    frozen = not any(p.requires_grad for p in base.parameters())
    if not plain or not frozen or b.bias is not None or base.weight.dtype != torch.float32:
        return None

    def forward(x: Tensor) -> Tensor:
        function = LoraLinear if base.weight.dtype == torch.float32 and compute == torch.float32 else NarrowLoraLinear
        return function.apply(x, base.weight, base.bias, a.weight, b.weight, scale)  # pyright: ignore[reportReturnType] (as above)

    return forward


def _linear(module: Any, compute: torch.dtype, *, reads_again: bool) -> Forward | None:
    """A matrix that learns and is multiplied in another type than it is kept in, or that reads what is made again."""
    learns = type(module) is nn.Linear and module.weight.requires_grad and module.weight.dtype == torch.float32
    if not learns or (compute == torch.float32 and not reads_again):
        return None

    def forward(x: Tensor) -> Tensor:
        narrow = torch.is_autocast_enabled(x.device.type)
        return NarrowLinear.apply(x, module.weight, module.bias, compute if narrow else module.weight.dtype)  # pyright: ignore[reportReturnType] (as above)

    return forward


def _types(name: str, compute: torch.dtype) -> tuple[torch.dtype, ...]:
    """What a candidate is compared on: norms meet sums, which are fp32, and results of products."""
    return (torch.float32, compute) if name == "RmsNorm" and compute != torch.float32 else (torch.float32,)
