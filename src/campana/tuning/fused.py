"""Hand-fused operations, each with its gradient written out: fewer passes over memory, and less kept for the backward pass.

Plain torch calls, so they run wherever torch runs, in the order of operations of transformers' own modules to within rounding;
`kernels.fuse` puts them in only after comparing both on numbers. Shapes: T tokens, D features, F features between the MLP's
matrices, R rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from campana.tuning.again import promised


class RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension. Keeps x and one number a row; plain autograd keeps x twice, in fp32.

    The arithmetic is fp32 whatever x is; the result is of the type that the next matrix product takes, so that it is rounded once for
    all of them.
    """

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_D: Tensor, eps: float, result: torch.dtype) -> Tensor:
        """(..., D) -> (..., D) in `result`."""
        wide_TD = x_TD.to(torch.promote_types(x_TD.dtype, torch.float32))
        norm_T1 = torch.linalg.vector_norm(wide_TD, dim=-1, keepdim=True)
        inverse_T1 = norm_T1.square_().div_(x_TD.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_TD, inverse_T1, weight_D)
        return torch.mul(wide_TD, inverse_T1).mul_(weight_D).to(result)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, in its type, and of the weight, where it learns."""
        x_TD, inverse_T1, weight_D = ctx.saved_tensors
        grad_TD = grads[0]
        unit_TD = x_TD * inverse_T1
        product_TD = grad_TD * unit_TD
        grad_weight = product_TD.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None, None
        mean_T1 = torch.matmul(product_TD, weight_D).div_(x_TD.shape[-1]).unsqueeze(-1)
        grad_x = torch.mul(grad_TD, weight_D).addcmul_(unit_TD, mean_T1, value=-1.0).mul_(inverse_T1)
        return grad_x.to(x_TD.dtype), grad_weight, None, None


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up. Keeps gate and up alone; silu(gate) is computed again for the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate_TF: Tensor, up_TF: Tensor) -> Tensor:
        """(..., F) twice -> (..., F)."""
        ctx.save_for_backward(gate_TF, up_TF)
        return torch.nn.functional.silu(gate_TF).mul_(up_TF)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of gate and up."""
        (grad_TF,) = grads
        gate_TF, up_TF = ctx.saved_tensors
        grad_up = torch.nn.functional.silu(gate_TF).mul_(grad_TF)
        grad_gate = torch.ops.aten.silu_backward(grad_TF * up_TF, gate_TF)
        return grad_gate, grad_up


class LoraLinear(torch.autograd.Function):
    """x (W + scale B A)' + bias with W frozen, the sum formed anew in each pass: one large product forward, one backward.

    Beside W x + scale B (A x) this saves three passes over an output-sized tensor and two thin products a layer; forming the sum
    costs one pass over W. It is what the merged model computes.
    """

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight: Tensor, bias: Tensor | None, a_RD: Tensor, b_FR: Tensor, scale: float) -> Tensor:
        """(..., D) -> (..., F)."""
        ctx.shape, ctx.again = x_TD.shape, promised(x_TD)
        ctx.save_for_backward(None if ctx.again else x_TD, weight, a_RD, b_FR)
        ctx.scale = scale
        return torch.nn.functional.linear(x_TD, torch.addmm(weight, b_FR, a_RD, alpha=scale), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x (where it is needed), A and B. W and its bias are frozen."""
        x_TD, weight, a_RD, b_FR = ctx.saved_tensors
        x_TD = ctx.again.get() if ctx.again else x_TD
        x_TD, grad_TF = x_TD.flatten(0, -2), grads[0].flatten(0, -2)
        inner_TR = x_TD @ a_RD.t()
        grad_inner_TR = (grad_TF @ b_FR).mul_(ctx.scale)
        grad_a = grad_inner_TR.t() @ x_TD
        grad_b = (grad_TF.t() @ inner_TR).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_TF @ torch.addmm(weight, b_FR, a_RD, alpha=ctx.scale)).view(ctx.shape)
        return grad_x, None, None, grad_a, grad_b, None


class NarrowLoraLinear(torch.autograd.Function):
    """x W' + scale (x A') B' + bias with W frozen in bf16 and the adapter's masters in fp32: every product in bf16, sums formed in place.

    The two are not joined into one matrix as in `LoraLinear`: rounded to bf16, W + scale B A would lose most of what a step changes.
    """

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight: Tensor, bias: Tensor | None, a_RD: Tensor, b_FR: Tensor, scale: float) -> Tensor:
        """(..., D) of any type -> (..., F) in W's."""
        shape, compute = x_TD.shape, weight.dtype
        ctx.again = promised(x_TD)
        x_TD = x_TD.flatten(0, -2).to(compute)
        inner_TR = (x_TD @ a_RD.to(compute).t()).mul_(scale)
        out_TF = torch.nn.functional.linear(x_TD, weight, bias).addmm_(inner_TR, b_FR.to(compute).t())
        ctx.save_for_backward(None if ctx.again else x_TD, inner_TR, weight, a_RD, b_FR)
        ctx.scale, ctx.shape = scale, shape
        return out_TF.view(*shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x (where it is needed) in W's type, of A and B in theirs."""
        x_TD, inner_TR, weight, a_RD, b_FR = ctx.saved_tensors
        compute = weight.dtype
        x_TD = ctx.again.get().flatten(0, -2).to(compute) if ctx.again else x_TD
        grad_TF = grads[0].flatten(0, -2).to(compute)
        grad_inner_TR = (grad_TF @ b_FR.to(compute)).mul_(ctx.scale)
        grad_a = (grad_inner_TR.t() @ x_TD).to(a_RD.dtype)
        grad_b = (grad_TF.t() @ inner_TR).to(b_FR.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_TF @ weight).addmm_(grad_inner_TR, a_RD.to(compute)).view(ctx.shape)
        return grad_x, None, None, grad_a, grad_b, None


class NarrowLinear(torch.autograd.Function):
    """x W' + bias with products in `compute` and the masters in fp32, as autocast has it; but neither W's narrow copy is kept nor an x
    that can be made again.

    The copy is made anew for the backward pass: a layer's is gone before the next one's is made, where autocast holds those of all layers
    at once.
    """

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight: Tensor, bias: Tensor | None, compute: torch.dtype) -> Tensor:
        """(..., D) of any type -> (..., F) in `compute`."""
        ctx.shape, ctx.compute, ctx.again = x_TD.shape, compute, promised(x_TD)
        x_TD = x_TD.to(compute)
        ctx.save_for_backward(None if ctx.again else x_TD, weight)
        return torch.nn.functional.linear(x_TD, weight.to(compute), None if bias is None else bias.to(compute))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x in `compute`, of W and the bias in their own type; each where it is needed."""
        x_TD, weight = ctx.saved_tensors
        x_TD = ctx.again.get() if ctx.again else x_TD
        x_TD, grad_TF = x_TD.flatten(0, -2).to(ctx.compute), grads[0].flatten(0, -2).to(ctx.compute)
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        grad_x = (grad_TF @ weight.to(ctx.compute)).view(ctx.shape) if for_x else None
        grad_weight = (grad_TF.t() @ x_TD).to(weight.dtype) if for_weight else None
        return grad_x, grad_weight, grad_TF.sum(0, dtype=weight.dtype) if for_bias else None, None
