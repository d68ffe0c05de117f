"""How compiled code is told of pages of keys and values, in either type.

kept, tables = pages_of(slabs)                       # `tables` must live as long as the call
keep(library.campana_keep, key_TKD, value_TKD, slabs, places_T)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Slabs = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of all pages: values (pages, K, page, D), keys as the code that reads them lays them; all slabs of one size."""


class Pages(ctypes.Structure):
    """`Pages` of the C files."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_int64) for name in ("kv_heads", "size", "page", "slab")),
    )


def pages_of(slabs: Slabs) -> tuple[Pages, list[Any]]:
    """The C form, and the tables that it points to."""
    tables = [(ctypes.c_void_p * len(slabs))(*(slab[part].data_ptr() for slab in slabs)) for part in (0, 1)]
    pages, kv_heads, page, size = slabs[0][1].shape
    return Pages(*map(ctypes.addressof, tables), kv_heads, size, page, pages), tables


def keep(function: Callable[..., Any], key_TKD: Tensor, value_TKD: Tensor, slabs: Slabs, places_T: Tensor) -> None:
    """Write tokens into pages: each to its place (int64), counted over all pages of all slabs."""
    key, value = key_TKD.contiguous(), value_TKD.contiguous()
    assert len(key) == len(value) == len(places_T)
    assert places_T.dtype == torch.int64
    assert places_T.is_contiguous()
    where = (ctypes.c_void_p(x.data_ptr()) for x in (key, value, places_T))
    kept, tables = pages_of(slabs)
    function(ctypes.byref(kept), *where, ctypes.c_int64(len(places_T)), ctypes.c_int(torch.get_num_threads()))
    del tables  # lived as long as the call
