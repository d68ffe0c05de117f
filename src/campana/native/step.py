"""Attention of one new token of each answer under way, over the answer's own keys and values, bf16 on a CPU.

    step = Step(library)
    if step.takes(query_RHD, value_RKD):
        slabs = [(keys, values), ...]                       # (pages, K, page, D) each
        step.keep(key_TKD, value_TKD, slabs, places_T)      # what was read of prompts
        out_RHD = step.attend(query_RHD, key_RKD, value_RKD, slabs, pages_RP, lengths_R, scale=1 / 8, window=None)

A row's bits depend on that row alone. Probabilities are not rounded, as they would be for a product of torch's.

Shapes: R rows, T tokens, P most pages of a row, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from campana.native.pages import Slabs, keep, pages_of

HEAD_MULTIPLE = 32
LARGEST_HEAD = 256


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("kept", "q", "k", "v", "lengths", "pages", "shared_keys", "shared_values", "out")),
        *((name, ctypes.c_int64) for name in ("width", "heads", "window", "shared")),
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

    def keep(self, key_TKD: Tensor, value_TKD: Tensor, slabs: Slabs, places_T: Tensor) -> None:
        """Write tokens into pages: each to its place (int64), counted over all pages of all slabs."""
        keep(self.library.campana_keep, key_TKD, value_TKD, slabs, places_T)

    def attend(
        self,
        query_RHD: Tensor,
        key_RKD: Tensor,
        value_RKD: Tensor,
        slabs: Slabs,
        pages_RP: Tensor,
        lengths_R: Tensor,
        *,
        scale: float,
        window: int | None,
        shared: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(R, H, D) bf16. Each row's key and value are first written into its pages, after the `lengths_R` (int64) that it has there.

        `pages_RP`: int32, the pages of each row in the order of its tokens, filled up with any. `window`: a row sees that many keys, the
        new one included. `shared`: keys and values (K, S, D) that come before all of the pages', the same for every row.
        """
        query, key, value = (x.contiguous() for x in (query_RHD, key_RKD, value_RKD))
        out = torch.empty(query.shape, dtype=torch.bfloat16)
        rows, heads, size = query.shape
        longest, kept, tables = int(lengths_R.max()), *pages_of(slabs)
        assert len(pages_RP) == rows == len(lengths_R)
        assert pages_RP.dtype == torch.int32
        assert pages_RP.is_contiguous()
        assert pages_RP.shape[1] * kept.page > longest
        empty = key.new_empty((key.shape[1], 0, size))
        begin_keys, begin_values = (x.contiguous() for x in shared or (empty, empty))
        places = [x.data_ptr() for x in (query, key, value, lengths_R, pages_RP, begin_keys, begin_values, out)]
        sizes = (pages_RP.shape[1], heads, window or 0, begin_keys.shape[1])
        step = _Step(ctypes.addressof(kept), *places, *sizes, scale, torch.get_num_threads())
        if self.library.campana_step(ctypes.byref(step), ctypes.c_int64(rows), ctypes.c_int64(longest)):
            raise MemoryError("attention: no memory for its scores")
        del tables  # lived as long as the call
        return out
