"""Attention of one new token of each answer under way, over the answer's own keys and values, bf16 on a CPU.

    step = Step(library)
    if step.takes(query_RHD, value_RKD):
        out_RHD = step.attend(query_RHD, key_RKD, value_RKD, [(keys, values, num_rows), ...], lengths_R, scale=1 / 8, window=None)

A row's bits depend on that row alone. Probabilities are not rounded, as they would be for a product of torch's.

Shapes: R rows in the order of the buckets, S slots of a bucket, H query heads, K key/value heads, D head size, L places of a bucket.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HEAD_MULTIPLE = 32
LARGEST_HEAD = 256


class _Bucket(ctypes.Structure):
    _fields_ = (("keys", ctypes.c_void_p), ("values", ctypes.c_void_p), ("places", ctypes.c_int64), ("rows", ctypes.c_int64))


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "lengths", "shared_keys", "shared_values", "out")),
        *((name, ctypes.c_int64) for name in ("heads", "kv_heads", "size", "window", "shared")),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int),
    )


@dataclass(frozen=True)
class Step:
    """The loaded library."""

    library: Any

    @staticmethod
    def takes(query: Tensor, value: Tensor) -> bool:
        """Whether heads of this type, place and size can be computed."""
        size = query.shape[-1]
        narrow = query.dtype == value.dtype == torch.bfloat16 and query.device.type == "cpu"
        return narrow and value.shape[-1] == size and size % HEAD_MULTIPLE == 0 and size <= LARGEST_HEAD

    def attend(
        self,
        query_RHD: Tensor,
        key_RKD: Tensor,
        value_RKD: Tensor,
        buckets: Sequence[tuple[Tensor, Tensor, int]],
        lengths_R: Tensor,
        *,
        scale: float,
        window: int | None,
        shared: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(R, H, D) bf16. Each row's key and value are first written into its bucket, at the place `lengths_R` (int64) of its slot.

        `buckets`: keys (S, K, L, D), values, and how many of the rows lie in it, in its first slots. `window`: a row sees that many
        keys, the new one included. `shared`: keys and values (K, P, D) that come before all of the buckets', the same for every row.
        """
        query, key, value = (x.contiguous() for x in (query_RHD, key_RKD, value_RKD))
        out = torch.empty(query.shape, dtype=torch.bfloat16)
        rows, heads, size = query.shape
        assert sum(num for _, _, num in buckets) == rows == len(lengths_R)
        where = (_Bucket * len(buckets))(*((k.data_ptr(), v.data_ptr(), k.shape[2], num) for k, v, num in buckets))
        empty = key.new_empty((key.shape[1], 0, size))
        begin_keys, begin_values = (x.contiguous() for x in shared or (empty, empty))
        places = [x.data_ptr() for x in (query, key, value, lengths_R, begin_keys, begin_values, out)]
        sizes = (heads, key.shape[1], size, window or 0, begin_keys.shape[1])
        step = _Step(*places, *sizes, scale, torch.get_num_threads())
        if self.library.campana_step(ctypes.byref(step), where, ctypes.c_int64(rows), ctypes.c_int64(int(lengths_R.max()))):
            raise MemoryError("attention: no memory for its scores")
        return out
