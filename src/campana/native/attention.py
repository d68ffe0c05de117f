"""The compiled attention, as functions of tensors: within the segments of a pack, causal or not, on a CPU, in bf16 or fp32.

    attention = Attention(library, torch.bfloat16)
    if attention.takes(q, v):
        out, lse = attention.forward(q, k, v, bounds, scale=1 / 8, window=None)
        grad_q, grad_k, grad_v = attention.backward(grad, q, k, v, out, lse, bounds, scale=1 / 8, window=None)

In bf16 three to ten times as quick as torch's fused kernel on Zen 5, and nearer to exact arithmetic; in fp32 1.3 to 2.3 times on Zen 3
(benchmarks/NOTES.md, Tuning). Nothing but the inputs, the result and `lse` need be kept. A segment's result does not depend on the pack,
nor any on the number of threads.

Shapes: T tokens of the pack, H query heads, K key/value heads, D head size, S segments.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LARGEST_HEAD = 256
HEAD_MULTIPLE = {torch.bfloat16: 16, torch.float32: 8}


class _Tensor(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("token", ctypes.c_int64), ("head", ctypes.c_int64))


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, _Tensor) for name in ("q", "k", "v")),
        ("bounds", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("segments", "heads", "kv_heads", "size", "window", "skip")),
        ("scale", ctypes.c_float),
        ("causal", ctypes.c_int),
        ("threads", ctypes.c_int),
    )


class _Gradients(ctypes.Structure):
    _fields_ = (
        ("out", _Tensor),
        ("grad", _Tensor),
        *((name, ctypes.c_void_p) for name in ("lse", "grad_q", "grad_k", "grad_v")),
    )


@dataclass(frozen=True)
class Attention:
    """The loaded library."""

    library: Any
    dtype: torch.dtype
    """Of queries, keys, values, results and gradients."""

    def takes(self, q_THD: Tensor, v_TKD: Tensor) -> bool:
        """Whether tensors of this type, place and head size can be computed."""
        size = q_THD.shape[2]
        mine = v_TKD.dtype == self.dtype and v_TKD.device.type == "cpu"
        return mine and v_TKD.shape[2] == size and size % HEAD_MULTIPLE[self.dtype] == 0 and size <= LARGEST_HEAD

    def forward(
        self,
        q_THD: Tensor,
        k_TKD: Tensor,
        v_TKD: Tensor,
        bounds: Tensor,
        *,
        scale: float,
        window: int | None = None,
        causal: bool = True,
        skip: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """(T, H, D), and (H, T) fp32: the base-2 logarithm of the sum of a query's exponentials, for `backward`.

        `bounds`: int32 (S + 1,), where segments begin, from 0 to T. `window`: a query sees that many keys, its own included. Where
        `causal` is false it sees its whole segment, and no window may be given. `skip`: of each segment's first so many tokens there are
        keys and values alone; query and results are (T - S * skip, ...), with the same bits as without. Such results have no `backward`.
        """
        inputs = [self._readable(x) for x in (q_THD, k_TKD, v_TKD)]
        out_THD = torch.empty(q_THD.shape, dtype=self.dtype)
        lse_HT = torch.empty(q_THD.shape[1], q_THD.shape[0])
        problem = _problem(inputs, bounds, scale, window, causal, skip)
        strides = (ctypes.c_int64 * 2)(out_THD.stride(0), out_THD.stride(1))
        _check(
            self.library.campana_attention_forward(
                ctypes.byref(problem), ctypes.c_void_p(out_THD.data_ptr()), strides, ctypes.c_void_p(lse_HT.data_ptr())
            )
        )
        return out_THD, lse_HT

    def backward(
        self,
        grad_THD: Tensor,
        q_THD: Tensor,
        k_TKD: Tensor,
        v_TKD: Tensor,
        out_THD: Tensor,
        lse_HT: Tensor,
        bounds: Tensor,
        *,
        scale: float,
        window: int | None = None,
        causal: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and value, in their shapes, from that of `forward`'s result."""
        inputs = [self._readable(x) for x in (q_THD, k_TKD, v_TKD)]
        out_THD, grad_THD = self._readable(out_THD), self._readable(grad_THD)
        found = tuple(torch.empty(x.shape, dtype=self.dtype) for x in inputs)
        problem = _problem(inputs, bounds, scale, window, causal)
        gradients = _Gradients(_view(out_THD), _view(grad_THD), lse_HT.data_ptr(), *(x.data_ptr() for x in found))
        _check(self.library.campana_attention_backward(ctypes.byref(problem), ctypes.byref(gradients)))
        return found[0], found[1], found[2]

    def _readable(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        return x if x.stride(-1) == 1 else x.contiguous()


def _view(x: Tensor) -> _Tensor:
    return _Tensor(x.data_ptr(), x.stride(0), x.stride(1))


def _problem(inputs: list[Tensor], bounds: Tensor, scale: float, window: int | None, causal: bool, skip: int = 0) -> _Problem:
    q, k, v = inputs
    assert causal or window is None
    assert bounds.dtype == torch.int32
    segments = len(bounds) - 1
    assert int(bounds[-1]) == q.shape[0] + segments * skip == k.shape[0] == v.shape[0]
    assert skip == 0 or int(bounds.diff().min()) > skip
    sizes = (segments, q.shape[1], k.shape[1], q.shape[2], window or 0, skip)
    return _Problem(_view(q), _view(k), _view(v), bounds.data_ptr(), *sizes, scale, causal, torch.get_num_threads())


def _check(status: int) -> None:
    if status:
        raise MemoryError("attention: no memory for its sums")
