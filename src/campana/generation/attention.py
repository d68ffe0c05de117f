"""Attention of the packed engine: each sequence over its own tokens, in the form that transformers calls any attention.

It owns the arithmetic between the projections and the keys kept in a `Shelf`. A pass is handed through the model's forward as the
keyword `campana_pass`; every layer calls `attend` here, which asks the pass. Passes over `Pages`, by compiled code, are in
`generation.paged`.

    PromptPass(rows, compiled)      # reads prompts laid end to end: causal attention per prompt; keeps keys and values
    StepPass(shelf)                 # one new token for every row: attention over the row's own keys and values

A step reads the whole bucket, with the places that are not yet written masked out. Prompts are computed by compiled code where it takes
the model's heads and steps do not (which in bf16 want more of them).

Nothing that is computed for a row depends on another row: prompts attend alone, and of a step each row is a product of its own (with
its group of query heads) whose sizes come from its own length. Of 16-bit scores torch itself computes the softmax in fp32. Sliding
windows and soft-caps are honoured; attention sinks and position biases are refused.

Legend: T tokens of the pass, R rows, H query heads, K key-value heads, G query heads a key-value head, D head size, L places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from campana.errors import ModelError
from campana.generation.kv import ROWS, Bucket, Row, Shelf

if TYPE_CHECKING:
    from torch import Tensor, nn

    from campana.native.compiled import Compiled

IMPLEMENTATION = "campana_packed"
"""The name under which transformers finds `attend`."""

SMALL_PRODUCT = 4096
"""Multiplications of a batch of 16-bit products up to which torch takes other kernels, whose sums round otherwise (its oneDNN gate): a few
rows of a tiny model. They are computed with more rows beside them."""

_REFUSED = ("s_aux", "position_bias", "cache")


class Pass(Protocol):
    """What a pass of the model attends to."""

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """(T, H * D), zero for the tokens that only fill the matrix up."""
        ...


class PromptPass:
    """Prompts laid end to end. The rows have their slots already."""

    def __init__(self, rows: Sequence[Row], compiled: Compiled | None = None) -> None:
        self._compiled = compiled
        self._spans: list[tuple[Row, int, int]] = []
        start = 0
        for row in rows:
            self._spans.append((row, start, start + row.length))
            start += row.length
        self._end = start
        self._kept = _kept_by_bucket(self._spans)
        self._bounds = torch.tensor([0, *(end for _, _, end in self._spans)], dtype=torch.int32)

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """(T, H * D), zero where no prompt is."""
        out = heads.empty_output()
        query_THD, key_TKD, value_TKD = heads.first(self._end)
        for bucket, (tokens_N, slots_N, places_N) in self._kept.items():
            keys, values = bucket.open(layer, heads.key_size, heads.value_size, heads.key_KTD)
            keys[slots_N, :, places_N], values[slots_N, :, places_N] = key_TKD[tokens_N], value_TKD[tokens_N]
        if self._compiled is not None and heads.softcap is None and self._compiled.attention.takes(query_THD, value_TKD):
            found, _ = self._compiled.attention.forward(
                query_THD, key_TKD, value_TKD, self._bounds, scale=heads.scaling, window=heads.window
            )
            out[: self._end] = found.flatten(1)
            return out
        for _, start, stop in self._spans:
            query, key, value = (part[start:stop].transpose(0, 1).contiguous()[None] for part in (query_THD, key_TKD, value_TKD))
            out[start:stop] = _causal(query, key, value, heads)[0].transpose(0, 1).flatten(1)
        return out


def _kept_by_bucket(spans: Sequence[tuple[Row, int, int]]) -> dict[Bucket, tuple[Tensor, Tensor, Tensor]]:
    """Where the keys of a pass are kept: of each bucket, which tokens, their slots and their places there, (N,) each."""
    found: dict[Bucket, tuple[list[int], list[int], list[int]]] = {}
    for row, start, end in spans:
        assert row.bucket is not None
        tokens, slots, places = found.setdefault(row.bucket, ([], [], []))
        tokens += range(start, end)
        slots += [row.slot] * (end - start)
        places += range(end - start)
    return {bucket: (torch.tensor(tokens), torch.tensor(slots), torch.tensor(places)) for bucket, (tokens, slots, places) in found.items()}


class StepPass:
    """One token for each row of a shelf, in the order of `shelf.rows`."""

    def __init__(self, shelf: Shelf) -> None:
        self._views = [_BucketView(bucket) for bucket in shelf.buckets]

    def attend(self, layer: int, heads: Heads) -> Tensor:
        """(T, H * D), zero for the rows that only fill the matrix up."""
        out = heads.empty_output()
        query_THD, key_TKD, value_TKD = (part.transpose(0, 1).contiguous() for part in (heads.query_HTD, heads.key_KTD, heads.value_KTD))
        start = 0
        for view in self._views:
            end = start + view.num_rows
            view.attend(layer, heads, query_THD[start:end], key_TKD[start:end], value_TKD[start:end], out[start:end])
            start = end
        return out


class Heads:
    """What a layer hands to its attention: rotated queries, keys and values, and how to weigh them."""

    __slots__ = ("key_KTD", "query_HTD", "scaling", "softcap", "value_KTD", "window")

    def __init__(self, query_HTD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scaling: float, window: int | None, softcap: float | None):
        self.query_HTD, self.key_KTD, self.value_KTD = query_HTD, key_KTD, value_KTD
        self.scaling, self.window, self.softcap = scaling, window, softcap

    @property
    def key_size(self) -> tuple[int, int]:
        """Key-value heads and the size of a key."""
        return self.key_KTD.shape[0], self.key_KTD.shape[2]

    @property
    def value_size(self) -> tuple[int, int]:
        """Key-value heads and the size of a value."""
        return self.value_KTD.shape[0], self.value_KTD.shape[2]

    def first(self, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the first tokens: (T, H, D), (T, K, D) twice."""
        query, key, value = (part[:, :end].transpose(0, 1) for part in (self.query_HTD, self.key_KTD, self.value_KTD))
        return query, key, value

    def empty_output(self) -> Tensor:
        """Zeros of (T, H * D)."""
        num_heads, num_tokens, _ = self.query_HTD.shape
        return self.query_HTD.new_zeros((num_tokens, num_heads * self.value_KTD.shape[2]))


class _BucketView:
    """A bucket at one step: where the new keys go and which places each row may see, made once for all layers."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.num_rows = len(bucket.rows)
        self._lengths_R = torch.tensor([row.length for row in bucket.rows])
        self._places: dict[int, Tensor] = {}
        self._masks: dict[tuple[int | None, int, int], Tensor] = {}

    def attend(self, layer: int, heads: Heads, query_RHD: Tensor, key_RKD: Tensor, value_RKD: Tensor, out: Tensor) -> None:
        num_kv, head_dim = heads.key_size
        value_dim, capacity = heads.value_size[1], self._bucket.capacity
        keys, values = self._bucket.open(layer, heads.key_size, heads.value_size, key_RKD)
        places = self._places_for(num_kv)
        keys.view(-1, head_dim).index_copy_(0, places, key_RKD.reshape(-1, head_dim))
        values.view(-1, value_dim).index_copy_(0, places, value_RKD.reshape(-1, value_dim))
        is_small = self.num_rows * query_RHD.shape[1] * min(head_dim, value_dim) * capacity <= SMALL_PRODUCT
        num_rows = ROWS if is_small else self.num_rows
        query = torch.nn.functional.pad(query_RHD, (0, 0, 0, 0, 0, num_rows - self.num_rows)) if is_small else query_RHD
        attended = out.new_empty((num_rows, out.shape[1])) if is_small else out
        mask = self._mask_for(heads.window, num_rows, num_kv, key_RKD)
        query = query.view(num_rows * num_kv, -1, head_dim)
        keys, values = keys[:num_rows].view(-1, capacity, head_dim), values[:num_rows].view(-1, capacity, value_dim)
        if heads.softcap is not None:
            scores = torch.bmm(query, keys.transpose(1, 2)) * heads.scaling
            scores = torch.tanh(scores / heads.softcap) * heads.softcap + mask
        else:
            scores = torch.baddbmm(mask, query, keys.transpose(1, 2), alpha=heads.scaling)
        torch.bmm(torch.softmax(scores, dim=-1), values, out=attended.view(num_rows * num_kv, -1, value_dim))
        if is_small:
            out.copy_(attended[: self.num_rows])

    def _places_for(self, num_kv: int) -> Tensor:
        """Of each row and head, the place of the new key in the bucket's keys seen as one list."""
        if num_kv not in self._places:
            heads = torch.arange(self.num_rows * num_kv) * self._bucket.capacity
            self._places[num_kv] = heads + self._lengths_R.repeat_interleave(num_kv)
        return self._places[num_kv]

    def _mask_for(self, window: int | None, num_rows: int, num_kv: int, like: Tensor) -> Tensor:
        """(R * K, 1, L): 0 where the row may look, minus infinity elsewhere. A window of w sees the token itself and w - 1 before it."""
        if (window, num_rows, num_kv) not in self._masks:
            lengths_R = torch.nn.functional.pad(self._lengths_R, (0, num_rows - self.num_rows))
            places_L, lengths_R1 = torch.arange(self._bucket.capacity), lengths_R[:, None]
            seen = places_L <= lengths_R1
            if window is not None:
                seen &= places_L > lengths_R1 - window
            mask = torch.zeros(seen.shape, dtype=like.dtype).masked_fill_(~seen, float("-inf"))
            self._masks[(window, num_rows, num_kv)] = mask.repeat_interleave(num_kv, dim=0)[:, None, :]
        return self._masks[(window, num_rows, num_kv)]


def _causal(query_1HTD: Tensor, key_1KTD: Tensor, value_1KTD: Tensor, heads: Heads) -> Tensor:
    """Causal attention of one prompt: (1, H, T, D)."""
    num_tokens, num_groups = query_1HTD.shape[2], query_1HTD.shape[1] // key_1KTD.shape[1]
    windowed = heads.window is not None and heads.window < num_tokens
    if heads.softcap is None and not windowed:
        return torch.nn.functional.scaled_dot_product_attention(
            query_1HTD, key_1KTD, value_1KTD, is_causal=True, scale=heads.scaling, enable_gqa=num_groups > 1
        )
    key, value = (part.repeat_interleave(num_groups, dim=1) for part in (key_1KTD, value_1KTD))
    scores = torch.matmul(query_1HTD, key.transpose(2, 3)) * heads.scaling
    if heads.softcap is not None:
        scores = torch.tanh(scores / heads.softcap) * heads.softcap
    distance = torch.arange(num_tokens)[:, None] - torch.arange(num_tokens)[None, :]
    hidden = distance < 0
    if heads.window is not None:
        hidden |= distance >= heads.window
    return torch.matmul(torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1), value)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  # transformers' signature; the pass knows what each token sees
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    campana_pass: Pass | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H * D)."""
    refused = [name for name in _REFUSED if others.get(name) is not None]
    if campana_pass is None or refused or not getattr(module, "is_causal", True):
        what = ", ".join(refused) or "attention that is not causal, or that does not pass keywords on"
        raise ModelError(f"the packed engine does not know this model's attention ({what})", hint="generate: {engine: transformers}")
    layer: Any = module.layer_idx
    heads = Heads(query[0], key[0], value[0], query.shape[-1] ** -0.5 if scaling is None else scaling, sliding_window, softcap)
    return campana_pass.attend(layer, heads)[None], None
