"""What stands between a layer's matrix products, as functions of tensors on a CPU, bf16 or fp32, each one pass over memory.

    elementwise = Elementwise(library, torch.bfloat16)
    turned = elementwise.rotary(q_THD, cos_TD, sin_TD)
    out, inverse = elementwise.norm(x_TD, weight_D, eps=1e-5)

Arithmetic is fp32 whatever is read, and what is written is rounded once: nearer to exact than the same in torch's bf16 operations.
No result depends on the number of threads.

Shapes: T tokens, H heads, D features of a row (or of a head), F features between the MLP's matrices, C rows of logits, V words.
"""

from __future__ import annotations

from ctypes import c_float, c_int, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MULTIPLE = {torch.bfloat16: 16, torch.float32: 8}
"""Of features of a row; of a head, twice as many, for its halves are turned into each other."""
BLOCK = 64
"""Tokens whose share of a norm's gradient is one sum."""
GATES = ("silu", "gelu_tanh")


@dataclass(frozen=True)
class Elementwise:
    """The loaded library."""

    library: Any
    dtype: torch.dtype
    """Of what is written."""

    def turns(self, x_THD: Tensor, cos: Tensor) -> bool:
        """Whether `rotary` can compute heads of this type, place and size: cos must be of the whole head."""
        size = x_THD.shape[-1]
        return self._is_mine(x_THD) and size == cos.shape[-1] and size % (2 * MULTIPLE[self.dtype]) == 0 and x_THD.stride(-1) == 1

    def rotary(self, x_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor, *, back: bool = False) -> Tensor:
        """x cos + (-second half, first half) sin: (T, H, D). cos, sin: fp32. `back`: the gradient of x from that of the result."""
        out_THD = torch.empty(x_THD.shape, dtype=self.dtype)
        strides = (c_int64(x_THD.stride(0)), c_int64(x_THD.stride(1)))
        sizes = [c_int64(n) for n in x_THD.shape]
        tables = (_at(cos_TD), _at(sin_TD))
        self.library.campana_rotary(_at(x_THD), *strides, *tables, _at(out_THD), *sizes, c_int(back), _threads())
        return out_THD

    def gates(self, gate: Tensor) -> bool:
        """Whether `gated` can compute numbers of this type and place."""
        return self._is_mine(gate) and gate.numel() % MULTIPLE[self.dtype] == 0

    def gated(self, gate: Tensor, up: Tensor, kind: str) -> Tensor:
        """act(gate) * up in their shape, and laid out as they are where both are alike; `kind` of `GATES`."""
        if gate.stride() != up.stride() or not _is_dense(gate):
            gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        self.library.campana_gated(_at(gate), _at(up), _at(out), c_int64(gate.numel()), c_int(GATES.index(kind)), _threads())
        return out

    def gated_backward(self, grad: Tensor, gate: Tensor, up: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """Gradients of gate and up from that of `gated`'s result."""
        grad, gate, up = (x.contiguous() for x in (grad.to(self.dtype), gate, up))
        found = [torch.empty(gate.shape, dtype=self.dtype) for _ in range(2)]
        places = [_at(x) for x in (grad, gate, up, *found)]
        self.library.campana_gated_backward(*places, c_int64(gate.numel()), c_int(GATES.index(kind)), _threads())
        return found[0], found[1]

    def norms(self, x: Tensor) -> bool:
        """Whether `norm` can compute rows of this type, place and length."""
        return x.device.type == "cpu" and x.dtype in (self.dtype, torch.float32) and x.shape[-1] % MULTIPLE[self.dtype] == 0

    def norm(self, x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """x / sqrt(mean(x^2) + eps) * weight over the last dimension, of `dtype`; and what each row was multiplied by, (T,) fp32."""
        assert weight_D.dtype == torch.float32
        assert weight_D.is_contiguous()
        x = x.contiguous()
        size = x.shape[-1]
        out, inverse_T = torch.empty(x.shape, dtype=self.dtype), torch.empty(x.numel() // size)
        wide = c_int(x.dtype == torch.float32)
        shape = (c_int64(inverse_T.numel()), c_int64(size))
        self.library.campana_norm(_at(x), wide, _at(weight_D), c_float(eps), _at(out), _at(inverse_T), *shape, _threads())
        return out, inverse_T

    def norm_backward(self, grad: Tensor, x: Tensor, inverse_T: Tensor, weight_D: Tensor, *, learns: bool) -> tuple[Tensor, Tensor | None]:
        """Gradients of x, in its type, and of the weight, fp32, where it learns."""
        grad, x = grad.to(self.dtype).contiguous(), x.contiguous()
        tokens, size = inverse_T.numel(), x.shape[-1]
        grad_x = torch.empty(x.shape, dtype=x.dtype)
        parts = torch.empty(-(-tokens // BLOCK), size) if learns else None
        wide = c_int(x.dtype == torch.float32)
        places = (_at(inverse_T), _at(weight_D), _at(grad_x), _at(parts))
        self.library.campana_norm_backward(_at(grad), _at(x), wide, *places, c_int64(tokens), c_int64(size), _threads())
        return grad_x, None if parts is None else parts.sum(0)

    def scores(self, logits_CV: Tensor) -> bool:
        """Whether `cross_entropy_` can compute logits of this type and place."""
        return self._is_mine(logits_CV) and logits_CV.is_contiguous()

    def cross_entropy_(self, logits_CV: Tensor, targets_C: Tensor, scale: float) -> Tensor:
        """The summed cross-entropy of `scale` times the logits (0-d float64), which become its gradient by what they were scaled to."""
        assert scale > 0
        assert targets_C.dtype == torch.int64
        targets_C, losses_C = targets_C.contiguous(), torch.empty(len(targets_C), dtype=torch.float64)
        places = (_at(logits_CV), _at(targets_C))
        shape = (c_int64(logits_CV.shape[0]), c_int64(logits_CV.shape[1]))
        self.library.campana_cross_entropy(*places, c_float(scale), _at(losses_C), *shape, _threads())
        return losses_C.sum()

    def _is_mine(self, x: Tensor) -> bool:
        return x.dtype == self.dtype and x.device.type == "cpu"


def _is_dense(x: Tensor) -> bool:
    """Whether its numbers lie side by side, by rows or by columns."""
    return x.is_contiguous() or x.transpose(-1, -2).is_contiguous()


def _at(x: Tensor | None) -> c_void_p:
    return c_void_p(None if x is None else x.data_ptr())


def _threads() -> c_int:
    return c_int(torch.get_num_threads())
