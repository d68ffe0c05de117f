"""Attention of single tokens, each over the keys and values of its own row, fp32 on a CPU.

    tokens = Tokens(library)
    if tokens.takes(query_THD, value_TKD):
        slabs = [(keys, values), ...]                       # (pages, K, D, PAGE), (pages, K, PAGE, D)
        tokens.keep(key_TKD, value_TKD, slabs, places_T)
        out_THD = tokens.attend(query_THD, slabs, pages_RP, rows_T, lengths_T, scale=1 / 8, window=None)

A token's bits depend on that token and the keys it sees alone, so what is read of a prompt may be cut anywhere.

Shapes: T tokens, R rows, P most pages of a row, H query heads, K key/value heads, D head size.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from campana.native.pages import Slabs, keep, pages_of

PAGE = 32
"""Tokens of a page, which the C file takes for given."""
HEAD_MULTIPLE = 8
LARGEST_HEAD = 256


class _Tokens(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("kept", "shared", "q", "lengths", "rows", "pages", "out")),
        *((name, ctypes.c_int64) for name in ("width", "heads", "window", "shared_tokens")),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int),
    )


@dataclass(frozen=True)
class Tokens:
    """The loaded library."""

    library: Any

    @staticmethod
    def takes(query: Tensor, value: Tensor) -> bool:
        """Whether heads of this type, place and size can be computed."""
        size = query.shape[-1]
        wide = query.dtype == value.dtype == torch.float32 and query.device.type == "cpu"
        return wide and value.shape[-1] == size and size % HEAD_MULTIPLE == 0 and size <= LARGEST_HEAD

    def keep(self, key_TKD: Tensor, value_TKD: Tensor, slabs: Slabs, places_T: Tensor) -> None:
        """Write tokens into pages: each to its place (int64), counted over all pages of all slabs."""
        keep(self.library.campana_tokens_keep, key_TKD, value_TKD, slabs, places_T)

    def attend(
        self,
        query_THD: Tensor,
        slabs: Slabs,
        pages_RP: Tensor,
        rows_T: Tensor,
        lengths_T: Tensor,
        *,
        scale: float,
        window: int | None,
        shared: tuple[tuple[Tensor, Tensor], int] | None = None,
    ) -> Tensor:
        """(T, H, D): each token over the first `lengths_T` (int64, at least 1) keys in the pages of its row, its own the last of them.

        All of these are kept already. `pages_RP`: int32, the pages of each row in the order of its tokens, filled up with any; `rows_T`:
        int32. `window`: a token sees that many keys, its own included. `shared`: a slab, and its number of tokens, that come before all of
        a row's, the same for every row.
        """
        query = query_THD.contiguous()
        out = torch.empty_like(query)
        num, longest = len(query), int(lengths_T.max())
        assert num == len(rows_T) == len(lengths_T)
        assert pages_RP.dtype == rows_T.dtype == torch.int32
        assert lengths_T.dtype == torch.int64
        assert all(x.is_contiguous() for x in (pages_RP, rows_T, lengths_T))
        assert query.shape[1] % slabs[0][1].shape[1] == 0
        assert slabs[0][1].shape[2:] == (PAGE, query.shape[2])
        assert pages_RP.shape[1] * PAGE >= longest
        assert int(lengths_T.min()) > 0
        kept, tables = pages_of(slabs)
        begin, shared_tokens = shared or (slabs[0], 0)
        first, first_tables = pages_of([begin])
        places = (x.data_ptr() for x in (query, lengths_T, rows_T, pages_RP, out))
        sizes = (pages_RP.shape[1], query.shape[1], window or 0, shared_tokens)
        call = _Tokens(ctypes.addressof(kept), ctypes.addressof(first), *places, *sizes, scale, torch.get_num_threads())
        if self.library.campana_tokens_attend(ctypes.byref(call), ctypes.c_int64(num), ctypes.c_int64(longest)):
            raise MemoryError("attention: no memory for its scores")
        del tables, first_tables  # lived as long as the call
        return out
