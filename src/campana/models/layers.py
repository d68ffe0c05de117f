"""Which modules of a transformers model are RMS norms and gated MLPs, by what they hold; and whether another forward computes the same.

    eps = norm_epsilon(module)              # None: not a norm that we know
    kind = gate_kind(module)                # "silu", "gelu_tanh" or None
    agrees(module, candidate, torch.float32)

Nothing is believed: who replaces a forward compares both on numbers first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
GATES = {"SiLU": "silu", "SiLUActivation": "silu", "GELUTanh": "gelu_tanh"}
"""transformers' classes of the activations that a gated MLP may have, and their names here."""
SIZES = (1.0, 1000.0)
"""Of the numbers that two forwards are compared on: some MLPs clamp what large ones become."""
OFFSETS = (0.0, 1.0)
"""What may be added to a norm's weight; Gemma's norms multiply by 1 + weight."""


def norm_epsilon(module: Any) -> float | None:
    """Of an RMS norm with a weight; None for any other module."""
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    known = type(module).__name__.endswith("RMSNorm") and isinstance(eps, float)
    return eps if known and isinstance(getattr(module, "weight", None), nn.Parameter) else None


def gate_kind(module: Any) -> str | None:
    """The activation of an MLP that computes down(act(gate(x)) * up(x)); None for any other module."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")]
    return GATES.get(type(parts[3]).__name__) if all(isinstance(part, nn.Module) for part in parts) else None


def agrees(module: nn.Module, candidate: Forward, dtype: torch.dtype, *, rtol: float | None = None, atol: float = 1e-5) -> bool:
    """Whether both compute the same of a few numbers of a type, to within the rounding of the candidate's result.

    `rtol`: None for that rounding (1e-4 in fp32). `atol`: of the largest number.
    """
    width = next((p.shape[-1] for p in module.parameters()), 0)
    device = next(module.parameters()).device
    if device.type == "meta":
        return False
    for size in SIZES:
        x = (size * torch.linspace(-2.0, 3.0, 3 * width, device=device).reshape(1, 3, width).sin()).to(dtype)
        with torch.no_grad():
            expected, found = module(x), candidate(x)
        within = rtol if rtol is not None else 1e-4 if found.dtype == torch.float32 else torch.finfo(found.dtype).eps
        if not torch.allclose(found.float(), expected.float(), rtol=within, atol=atol * float(expected.abs().max() + 1e-30)):
            return False
    return True
