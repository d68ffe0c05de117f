"""Attention of the packed engine by compiled code, over keys and values in `Pages`, on a CPU: in bf16 and in fp32.

    paged = paged_by(compiled)
    paged.beginning(24)                          # reads what all prompts begin with; keeps keys and values once for all
    paged.prompts(rows, pages)                   # reads the rest of prompts laid end to end: causal attention per prompt
    paged.step(pages)                            # one new token for every row: attention over the beginning and the row's own pages

A token's bits do not depend on what is read with it, nor on how many tokens come after it (`native.attention`, `native.step`,
`native.tokens`), so an answer is the same with a shared beginning and without. The first pass tells whether compiled code takes all of a
model's layers.

Legend: T tokens of the pass, R rows, P pages, H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from campana.generation.kv import PAGE, Beginning, Pages, Row, pages_for
from campana.native.tokens import Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from campana.generation.attention import Heads, Pass
    from campana.native.attention import Attention
    from campana.native.compiled import Compiled
    from campana.native.pages import Slabs
    from campana.native.step import Step


class BeginningPass(Protocol):
    """What all prompts begin with."""

    beginning: Beginning
    is_taken: bool
    """False: a layer whose attention is not computed by compiled code, in this pass or in a step."""

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """(T, H * D), zero after the beginning."""
        ...


class Paged(Protocol):
    """The passes over pages, in one type."""

    def beginning(self, num_tokens: int) -> BeginningPass:
        """Read so many tokens, with which all prompts begin."""
        ...

    def prompts(self, rows: Sequence[Row], pages: Pages) -> Pass:
        """Read prompts laid end to end, each after the shared beginning. The rows have their pages already."""
        ...

    def step(self, pages: Pages) -> Pass:
        """Read one token for each row, in the order of `pages.rows`."""
        ...


def paged_by(compiled: Compiled) -> Paged:
    """The passes that compiled code has for models of its type."""
    return PagedFp32(compiled.step) if isinstance(compiled.step, Tokens) else PagedBf16(compiled.attention, compiled.step)


# ---- bf16 ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PagedBf16:
    """See `Paged`."""

    of_prompts: Attention
    of_step: Step

    def beginning(self, num_tokens: int) -> BeginningPass:
        """See `Paged`."""
        return _Bf16Beginning(num_tokens, self)

    def prompts(self, rows: Sequence[Row], pages: Pages) -> Pass:
        """See `Paged`."""
        return _Bf16Prompts(rows, pages, self)

    def step(self, pages: Pages) -> Pass:
        """See `Paged`."""
        return _Bf16Step(pages, self.of_step)


class _Bf16Beginning:
    def __init__(self, num_tokens: int, by: PagedBf16) -> None:
        self._by = by
        self._bounds = torch.tensor([0, num_tokens], dtype=torch.int32)
        self.beginning = Beginning(num_tokens)
        self.is_taken = True

    def attend(self, layer: int, heads: Heads) -> Tensor:
        out, end = heads.empty_output(), self.beginning.num_tokens
        query_THD, key_TKD, value_TKD = heads.first(end)
        takes = all(part.takes(query_THD, value_TKD) for part in (self._by.of_prompts, self._by.of_step))
        if heads.softcap is not None or not takes:
            self.is_taken = False
            return out
        found, _ = self._by.of_prompts.forward(query_THD, key_TKD, value_TKD, self._bounds, scale=heads.scaling, window=heads.window)
        out[:end] = found.flatten(1)
        self.beginning.kept[layer] = key_TKD.transpose(0, 1).contiguous(), value_TKD.transpose(0, 1).contiguous()
        return out


class _Bf16Prompts:
    def __init__(self, rows: Sequence[Row], pages: Pages, by: PagedBf16) -> None:
        self._pages, self._by = pages, by
        lengths, shared = torch.tensor([row.length for row in rows]), pages.num_shared
        self._bounds = torch.nn.functional.pad((lengths + shared).cumsum(0), (1, 0)).int()
        own = [torch.arange(row.length) for row in rows]
        self._places_T = torch.cat(
            [torch.tensor(row.pages)[each // PAGE] * PAGE + each % PAGE for row, each in zip(rows, own, strict=True)]
        )
        starts = (lengths.cumsum(0) - lengths + shared).tolist()
        both = ((torch.arange(shared), start + each) for start, each in zip(starts, own, strict=True))
        self._whole = torch.cat([part for pair in both for part in pair])
        """Of each whole prompt, its tokens' places among those of the beginning and then those of the pass."""

    def attend(self, layer: int, heads: Heads) -> Tensor:
        out, end = heads.empty_output(), len(self._places_T)
        query_THD, key_TKD, value_TKD = heads.first(end)
        self._by.of_step.keep(key_TKD, value_TKD, _bf16_slabs(self._pages, layer, heads), self._places_T)
        found, _ = self._by.of_prompts.forward(
            query_THD,
            *self._of_whole(layer, key_TKD, value_TKD),
            self._bounds,
            scale=heads.scaling,
            window=heads.window,
            skip=self._pages.num_shared,
        )
        out[:end] = found.flatten(1)
        return out

    def _of_whole(self, layer: int, key_TKD: Tensor, value_TKD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of each prompt from its first token on."""
        if self._pages.num_shared == 0:
            return key_TKD, value_TKD
        first_keys, first_values = (part_KPD.transpose(0, 1) for part_KPD in self._pages.beginning.kept[layer])
        return torch.cat([first_keys, key_TKD])[self._whole], torch.cat([first_values, value_TKD])[self._whole]


class _Bf16Step:
    def __init__(self, pages: Pages, step: Step) -> None:
        self._pages, self._step = pages, step
        self._pages_RP = _table(pages.rows)
        self._lengths_R = torch.tensor([row.length for row in pages.rows])

    def attend(self, layer: int, heads: Heads) -> Tensor:
        out, end = heads.empty_output(), len(self._lengths_R)
        out[:end] = self._step.attend(
            *heads.first(end),
            _bf16_slabs(self._pages, layer, heads),
            self._pages_RP,
            self._lengths_R,
            scale=heads.scaling,
            window=heads.window,
            shared=self._pages.beginning.kept.get(layer),
        ).flatten(1)
        return out


def _bf16_slabs(pages: Pages, layer: int, heads: Heads) -> list[tuple[Tensor, Tensor]]:
    (kv_heads, size), (_, value_size) = heads.key_size, heads.value_size
    return pages.slabs(layer, (kv_heads, PAGE, size), (kv_heads, PAGE, value_size), heads.key_KTD)


# ---- fp32: every token, of a prompt or new, sees the keys of its row up to its own ------------------------------------------------------


@dataclass(frozen=True)
class PagedFp32:
    """See `Paged`."""

    tokens: Tokens

    def beginning(self, num_tokens: int) -> BeginningPass:
        """See `Paged`."""
        return _Fp32Beginning(num_tokens, self.tokens)

    def prompts(self, rows: Sequence[Row], pages: Pages) -> Pass:
        """See `Paged`."""
        lengths_T = torch.cat([torch.arange(1, row.length + 1) for row in rows])
        rows_T = torch.repeat_interleave(torch.tensor([row.length for row in rows])).int()
        return _Fp32Pass(pages, _Fp32Batch(self.tokens, _table(rows), rows_T, lengths_T))

    def step(self, pages: Pages) -> Pass:
        """See `Paged`."""
        lengths_T = torch.tensor([row.length + 1 for row in pages.rows])
        rows_T = torch.arange(len(pages.rows), dtype=torch.int32)
        return _Fp32Pass(pages, _Fp32Batch(self.tokens, _table(pages.rows), rows_T, lengths_T))


class _Fp32Batch:
    """Some tokens: the row of each, how many keys of its pages it sees, and so the place of its own key."""

    def __init__(self, tokens: Tokens, pages_RP: Tensor, rows_T: Tensor, lengths_T: Tensor) -> None:
        self.tokens, self._pages_RP, self._rows_T, self._lengths_T = tokens, pages_RP, rows_T, lengths_T
        last_T = lengths_T - 1
        self._places_T = pages_RP[rows_T.long(), last_T // PAGE] * PAGE + last_T % PAGE

    def attend(self, heads: Heads, slabs: Slabs, shared: tuple[tuple[Tensor, Tensor], int] | None = None) -> Tensor:
        """Keep their keys and values, then compute them: (T', H * D), zero after the T tokens."""
        out, end = heads.empty_output(), len(self._rows_T)
        query_THD, key_TKD, value_TKD = heads.first(end)
        self.tokens.keep(key_TKD, value_TKD, slabs, self._places_T)
        tokens = (self._pages_RP, self._rows_T, self._lengths_T)
        found = self.tokens.attend(query_THD, slabs, *tokens, scale=heads.scaling, window=heads.window, shared=shared)
        out[:end] = found.flatten(1)
        return out


class _Fp32Beginning:
    def __init__(self, num_tokens: int, tokens: Tokens) -> None:
        self.beginning = Beginning(num_tokens)
        self.is_taken = True
        self._num_pages = pages_for(num_tokens)
        pages_1P = torch.arange(self._num_pages, dtype=torch.int32)[None]
        self._batch = _Fp32Batch(tokens, pages_1P, torch.zeros(num_tokens, dtype=torch.int32), torch.arange(1, num_tokens + 1))

    def attend(self, layer: int, heads: Heads) -> Tensor:
        query_THD, _, value_TKD = heads.first(self.beginning.num_tokens)
        if heads.softcap is not None or not self._batch.tokens.takes(query_THD, value_TKD):
            self.is_taken = False
            return heads.empty_output()
        keys, values = (heads.key_KTD.new_empty((self._num_pages, *page)) for page in _fp32_pages(heads))
        self.beginning.kept[layer] = keys, values
        return self._batch.attend(heads, [(keys, values)])


@dataclass(frozen=True)
class _Fp32Pass:
    pages: Pages
    batch: _Fp32Batch

    def attend(self, layer: int, heads: Heads) -> Tensor:
        slabs = self.pages.slabs(layer, *_fp32_pages(heads), heads.key_KTD)
        begin = self.pages.beginning.kept.get(layer)
        return self.batch.attend(heads, slabs, None if begin is None else (begin, self.pages.num_shared))


def _fp32_pages(heads: Heads) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The shapes of a page's keys and values."""
    kv_heads, size = heads.key_size
    return (kv_heads, size, PAGE), (kv_heads, PAGE, size)


# ---- both ----------------------------------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Row]) -> Tensor:
    """(R, P) int32: each row's pages, filled up with the first."""
    most = max(len(row.pages) for row in rows)
    return torch.tensor([[*row.pages, *[0] * (most - len(row.pages))] for row in rows], dtype=torch.int32)
