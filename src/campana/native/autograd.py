"""Autograd over the compiled operations of a layer, and how they get into transformers' layers.

    out_THD = CompiledAttention.apply(q_THD, k_TKD, v_TKD, bounds, scale, window, causal, attention)
    out_TD = CompiledNorm.apply(x_TD, weight_D, eps, elementwise)
    out_TF = CompiledGate.apply(gate_TF, up_TF, "silu", elementwise)
    with rotary_of(files, elementwise): ...       # the model's layers turn queries and keys by it

Shapes: T tokens, H heads, K key/value heads, D features, F features between the MLP's matrices.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from campana.native.attention import Attention
    from campana.native.elementwise import Elementwise

ROTARY = "apply_rotary_pos_emb"
"""What transformers calls it in each model's own file: (q, k, cos, sin) -> (q, k)."""


class CompiledAttention(torch.autograd.Function):
    """Attention within the segments of a pack, or of a batch's rows one after the other."""

    @staticmethod
    def forward(
        ctx: Any,
        q_THD: Tensor,
        k_TKD: Tensor,
        v_TKD: Tensor,
        bounds: Tensor,
        scale: float,
        window: int | None,
        causal: bool,
        attention: Attention,
    ) -> Tensor:
        """(T, H, D); the arguments are those of `Attention.forward`."""
        pattern: dict[str, Any] = {"scale": scale, "window": window, "causal": causal}
        out_THD, lse_HT = attention.forward(q_THD, k_TKD, v_TKD, bounds, **pattern)
        ctx.pattern, ctx.attention = pattern, attention
        ctx.save_for_backward(q_THD, k_TKD, v_TKD, out_THD, lse_HT, bounds)
        return out_THD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        return (*ctx.attention.backward(grads[0], *ctx.saved_tensors, **ctx.pattern), None, None, None, None, None)


class CompiledNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight, of rows in fp32 or in what `elementwise` writes."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_D: Tensor, eps: float, elementwise: Elementwise) -> Tensor:
        """(..., D) -> (..., D)."""
        out_TD, inverse_T = elementwise.norm(x_TD, weight_D, eps)
        ctx.save_for_backward(x_TD, inverse_T, weight_D)
        ctx.elementwise = elementwise
        return out_TD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, in its type, and of the weight, where it learns."""
        learns = ctx.needs_input_grad[1]
        grad_x, grad_weight = ctx.elementwise.norm_backward(grads[0], *ctx.saved_tensors, learns=learns)
        return grad_x, grad_weight, None, None


class CompiledGate(torch.autograd.Function):
    """act(gate) * up. Keeps gate and up alone."""

    @staticmethod
    def forward(ctx: Any, gate_TF: Tensor, up_TF: Tensor, kind: str, elementwise: Elementwise) -> Tensor:
        """(..., F) twice -> (..., F)."""
        ctx.save_for_backward(gate_TF, up_TF)
        ctx.kind, ctx.elementwise = kind, elementwise
        return elementwise.gated(gate_TF, up_TF, kind)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of gate and up."""
        return (*ctx.elementwise.gated_backward(grads[0], *ctx.saved_tensors, ctx.kind), None, None)


class CompiledRotary(torch.autograd.Function):
    """Queries or keys turned by their positions, (1, H, T, D); nothing but cos and sin is kept."""

    @staticmethod
    def forward(ctx: Any, x_1HTD: Tensor, cos_TD: Tensor, sin_TD: Tensor, elementwise: Elementwise) -> Tensor:
        """(1, H, T, D) -> (1, H, T, D), laid out as (T, H, D)."""
        ctx.tables, ctx.elementwise = (cos_TD, sin_TD), elementwise
        return elementwise.rotary(x_1HTD[0].transpose(0, 1), cos_TD, sin_TD).transpose(0, 1)[None]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of what was turned: it is turned back."""
        grad_THD = grads[0][0].transpose(0, 1).to(ctx.elementwise.dtype)
        if grad_THD.stride(-1) != 1:
            grad_THD = grad_THD.contiguous()
        return ctx.elementwise.rotary(grad_THD, *ctx.tables, back=True).transpose(0, 1)[None], None, None, None


@contextlib.contextmanager
def rotary_of(files: Iterable[str], elementwise: Elementwise) -> Generator[None]:
    """Within it the functions named `ROTARY` of transformers' files are ours; `files`: module names, as `turning_files` found them.

    A layer calls the function by its name in its own file, so there is no other place to put another. For one thread.
    """
    places: list[Any] = [sys.modules[name] for name in files]
    originals = [getattr(place, ROTARY) for place in places]
    try:
        for place, original in zip(places, originals, strict=True):
            setattr(place, ROTARY, _turning(original, elementwise))
        yield
    finally:
        for place, original in zip(places, originals, strict=True):
            setattr(place, ROTARY, original)


def turning_files(model: torch.nn.Module, elementwise: Elementwise) -> tuple[str, ...]:
    """The files of the model's layers whose rotary function computes what ours does, tried on numbers."""
    names = sorted({type(module).__module__ for module in model.modules()})
    return tuple(name for name in names if _turns_alike(getattr(sys.modules[name], ROTARY, None), elementwise))


def _turning(original: Any, elementwise: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    def turned(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        plain = not args and not kwargs and q.ndim == 4 and q.shape[0] == 1 and cos.ndim == 3 and cos.shape[0] == 1
        if not plain or not all(elementwise.turns(x[0].transpose(0, 1), cos) for x in (q, k)):
            return original(q, k, cos, sin, *args, **kwargs)
        tables = (cos[0].float().contiguous(), sin[0].float().contiguous(), elementwise)
        found: Any = CompiledRotary.apply(q, *tables), CompiledRotary.apply(k, *tables)  # apply is typed as Any or None
        return found

    return turned


def _turns_alike(original: Any, elementwise: Elementwise) -> bool:
    if original is None:
        return False
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, heads, 5, 64, generator=generator).to(elementwise.dtype) for heads in (2, 1))
    angles = torch.randn(1, 5, 32, generator=generator).repeat(1, 1, 2)
    tables = (angles.cos(), angles.sin())
    try:
        expected, found = original(q, k, *tables), _turning(original, elementwise)(q, k, *tables)
        rounding = 0.02 if elementwise.dtype == torch.bfloat16 else 1e-5
        return all(torch.allclose(a.float(), b.float(), rtol=rounding, atol=rounding) for a, b in zip(expected, found, strict=True))
    except (TypeError, RuntimeError, ValueError):  # another signature: what it computes is its own
        return False
