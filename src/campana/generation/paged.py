"""Attention of the packed engine by compiled code, over keys and values in `Pages`: bf16 on a CPU.

    BeginningPass(24, compiled)             # reads what all prompts begin with; keeps keys and values once for all
    PagedPromptPass(rows, pages, compiled)  # reads the rest of prompts laid end to end: causal attention per prompt
    PagedStepPass(pages, compiled)          # one new token for every row: attention over the beginning and the row's own pages

A token's bits do not depend on what is read with it, nor on how many tokens come after it (`native.attention`, `native.step`), so an
answer is the same with a shared beginning and without. The first pass tells whether compiled code takes all of a model's layers.

Legend: T tokens of the pass, R rows, P pages, H query heads, K key-value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from campana.generation.kv import PAGE, Beginning, Pages, Row

if TYPE_CHECKING:
    from torch import Tensor

    from campana.generation.attention import Heads
    from campana.native.compiled import Compiled


class BeginningPass:
    """What all prompts begin with."""

    def __init__(self, num_tokens: int, compiled: Compiled) -> None:
        self._compiled = compiled
        self._bounds = torch.tensor([0, num_tokens], dtype=torch.int32)
        self.beginning = Beginning(num_tokens)
        self.is_taken = True
        """False: a layer whose attention is not computed by compiled code, in this pass or in a step."""

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """(T, H * D), zero after the beginning."""
        out, end = heads.empty_output(), self.beginning.num_tokens
        query_THD, key_TKD, value_TKD = heads.first(end)
        takes = all(part.takes(query_THD, value_TKD) for part in (self._compiled.attention, self._compiled.step))
        if heads.softcap is not None or not takes:
            self.is_taken = False
            return out
        found, _ = self._compiled.attention.forward(query_THD, key_TKD, value_TKD, self._bounds, scale=heads.scaling, window=heads.window)
        out[:end] = found.flatten(1)
        self.beginning.kept[layer] = key_TKD.transpose(0, 1).contiguous(), value_TKD.transpose(0, 1).contiguous()
        return out


class PagedPromptPass:
    """Prompts laid end to end, each after the shared beginning. The rows have their pages already."""

    def __init__(self, rows: Sequence[Row], pages: Pages, compiled: Compiled) -> None:
        self._pages, self._compiled = pages, compiled
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
        """(T, H * D), zero where no prompt is."""
        out, end = heads.empty_output(), len(self._places_T)
        query_THD, key_TKD, value_TKD = heads.first(end)
        self._compiled.step.keep(
            key_TKD, value_TKD, self._pages.slabs(layer, heads.key_size, heads.value_size, heads.key_KTD), self._places_T
        )
        found, _ = self._compiled.attention.forward(
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


class PagedStepPass:
    """One token for each row, in the order of `pages.rows`."""

    def __init__(self, pages: Pages, compiled: Compiled) -> None:
        self._pages, self._compiled = pages, compiled
        most = max(len(row.pages) for row in pages.rows)
        self._pages_RP = torch.tensor([[*row.pages, *[0] * (most - len(row.pages))] for row in pages.rows], dtype=torch.int32)
        self._lengths_R = torch.tensor([row.length for row in pages.rows])

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """(T, H * D), zero for the rows that only fill the matrix up."""
        out, end = heads.empty_output(), len(self._lengths_R)
        out[:end] = self._compiled.step.attend(
            *heads.first(end),
            self._pages.slabs(layer, heads.key_size, heads.value_size, heads.key_KTD),
            self._pages_RP,
            self._lengths_R,
            scale=heads.scaling,
            window=heads.window,
            shared=self._pages.beginning.kept.get(layer),
        ).flatten(1)
        return out
