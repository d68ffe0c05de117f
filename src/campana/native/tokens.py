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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PAGE = 32
HEAD_MULTIPLE = 8
LARGEST_HEAD = 256
Slab = tuple[Tensor, Tensor]
"""Keys (pages, K, D, PAGE) and values (pages, K, PAGE, D); all slabs of one size."""


class _Pages(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_int64) for name in ("kv_heads", "size", "slab")),
    )


class _Tokens(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("kept", "shared", "q", "k", "v", "lengths", "rows", "pages", "out")),
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

    def keep(self, key_TKD: Tensor, value_TKD: Tensor, slabs: Sequence[Slab], places_T: Tensor) -> None:
        """Write tokens into pages: each to its place (int64), counted over all pages of all slabs."""
        key, value = key_TKD.contiguous(), value_TKD.contiguous()
        assert len(key) == len(value) == len(places_T)
        assert places_T.dtype == torch.int64
        assert places_T.is_contiguous()
        where = (ctypes.c_void_p(x.data_ptr()) for x in (key, value, places_T))
        num, threads = ctypes.c_int64(len(places_T)), ctypes.c_int(torch.get_num_threads())
        kept, tables = _pages(slabs)
        self.library.campana_tokens_keep(ctypes.byref(kept), *where, num, threads)
        del tables  # lived as long as the call

    def attend(
        self,
        query_THD: Tensor,
        slabs: Sequence[Slab],
        pages_RP: Tensor,
        rows_T: Tensor,
        lengths_T: Tensor,
        *,
        scale: float,
        window: int | None,
        new: tuple[Tensor, Tensor] | None = None,
        shared: tuple[Slab, int] | None = None,
    ) -> Tensor:
        """(T, H, D): each token over the first `lengths_T` (int64, at least 1) keys in the pages of its row, its own the last of them.

        `pages_RP`: int32, the pages of each row in the order of its tokens, filled up with any; `rows_T`: int32. `window`: a token sees
        that many keys, its own included. `new`: keys and values (T, K, D) of these tokens, one of each row, written into their places
        first; None: they are there. `shared`: pages, and their number of tokens, that come before all of a row's, the same for every row.
        """
        query = query_THD.contiguous()
        out = torch.empty_like(query)
        own = [x.contiguous() for x in new or ()]
        num, longest = len(query), int(lengths_T.max())
        assert num == len(rows_T) == len(lengths_T)
        assert pages_RP.dtype == rows_T.dtype == torch.int32
        assert lengths_T.dtype == torch.int64
        assert all(x.is_contiguous() for x in (pages_RP, rows_T, lengths_T))
        assert all(x.shape == (num, *slabs[0][1].shape[1::2]) for x in own)
        assert query.shape[1] % slabs[0][1].shape[1] == 0
        assert query.shape[2] == slabs[0][1].shape[3]
        assert pages_RP.shape[1] * PAGE >= longest
        assert int(lengths_T.min()) > 0
        kept, tables = _pages(slabs)
        begin, shared_tokens = shared or (slabs[0], 0)
        first, first_tables = _pages([begin])
        k, v = (x.data_ptr() for x in own) if own else (None, None)
        places = (query.data_ptr(), k, v, *(x.data_ptr() for x in (lengths_T, rows_T, pages_RP, out)))
        sizes = (pages_RP.shape[1], query.shape[1], window or 0, shared_tokens)
        call = _Tokens(ctypes.addressof(kept), ctypes.addressof(first), *places, *sizes, scale, torch.get_num_threads())
        if self.library.campana_tokens_attend(ctypes.byref(call), ctypes.c_int64(num), ctypes.c_int64(longest)):
            raise MemoryError("attention: no memory for its scores")
        del tables, first_tables  # lived as long as the call
        return out


def _pages(slabs: Sequence[Slab]) -> tuple[_Pages, list[Any]]:
    """The C form, and the tables that it points to."""
    tables = [(ctypes.c_void_p * len(slabs))(*(slab[part].data_ptr() for slab in slabs)) for part in (0, 1)]
    pages, kv_heads, size, page = slabs[0][0].shape
    assert page == PAGE
    return _Pages(*map(ctypes.addressof, tables), kv_heads, size, pages), tables
