"""Forwards by compiled operations for the layers of a model that is lent to the packed engine: norms and gated MLPs.

    for module, forward in replacements(model, elementwise): ...

Each is compared with the layer's own on numbers. A row's bits depend on that row alone, as the engine's law demands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from campana.models.layers import OFFSETS, Forward, agrees, gate_kind, norm_epsilon
from campana.native.elementwise import Elementwise

ROUNDING = {torch.bfloat16: 3 * torch.finfo(torch.bfloat16).eps, torch.float32: 1e-5}
"""By which a layer's own operations and ours may differ: theirs round after each."""


def replacements(model: nn.Module, elementwise: Elementwise) -> Iterator[tuple[nn.Module, Forward]]:
    """The modules that can be computed by other forwards, and those."""
    rounding = ROUNDING[elementwise.dtype]
    for module in model.modules():
        candidates = (*(_norm(module, offset, elementwise) for offset in OFFSETS), _mlp(module, elementwise))
        for candidate in candidates:
            if candidate is not None and agrees(module, candidate, elementwise.dtype, rtol=rounding, atol=rounding):
                yield module, candidate
                break


def _norm(module: Any, offset: float, elementwise: Elementwise) -> Forward | None:
    eps = norm_epsilon(module)
    if eps is None or module.weight.dtype != elementwise.dtype:
        return None
    weight = module.weight.detach().float() + offset

    def forward(x: Tensor) -> Tensor:
        return elementwise.norm(x, weight, eps)[0] if elementwise.norms(x) else type(module).forward(module, x)

    return forward


def _mlp(module: Any, elementwise: Elementwise) -> Forward | None:
    kind = gate_kind(module)
    if kind is None:
        return None

    def forward(x: Tensor) -> Tensor:
        gate, up = module.gate_proj(x), module.up_proj(x)
        return module.down_proj(elementwise.gated(gate, up, kind) if elementwise.gates(gate) else module.act_fn(gate) * up)

    return forward
