"""The keys and values of the answers under way, in one of two forms. It owns where a row's keys lie; it knows nothing of models or tokens.

Both have `rows` (the order of a decoding pass), `put`, `advance`, `take_out` and `num_shared`.

`Shelf`, for torch's attention: rows of one length class lie together in a bucket, so attention needs no copy and no long padding.

    shelf = Shelf()
    shelf.put(row)                    # into a bucket for row.length + 1 tokens
    shelf.advance()                   # rows that outgrew their bucket move to the next class
    for bucket in shelf.buckets: ...  # bucket.rows; bucket.open(layer, ...) -> (keys_RHLD, values_RHLD)

A bucket holds at most `ROWS` rows and reserves room for them at once, so it never grows by copying. The room comes from the system itself,
which gives memory as it is first written and has it back when the bucket goes (`_room`). All buckets of a class but the last are full, and
an empty one goes. The class of a row depends on the row's own length alone: what attention reads for a row never depends on its neighbours.

`Pages`, for compiled attention, which reads a row's keys wherever they lie: a row has pages of `PAGE` tokens, as many as it needs, and
nothing is ever moved. What all rows begin with lies once beside the pages (`Beginning`).

    pages = Pages(beginning)
    pages.put(row); pages.advance()   # row.pages holds row.length + 1 tokens
    pages.slabs(layer, ...)           # [(keys, values), ...], SLAB pages each

Legend: R rows, H key-value heads, L places, D head size.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from campana.generation.engine import Request

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 32
"""Most of a bucket."""
PAGE = 32
"""Tokens of a page: what compiled attention scores at once, in one block (fp32) or two (bf16)."""
SLAB = 64
"""Pages that memory is taken for at once."""


@dataclass(slots=True, eq=False)
class Row:
    """An answer under way."""

    request: Request
    length: int
    """Tokens whose keys and values are kept: the prompt after the shared beginning, and all new tokens but the last."""
    token_ids: list[int] = field(default_factory=list[int])
    """New tokens so far."""
    bucket: Bucket | None = None
    slot: int = -1
    """Place in the bucket."""
    pages: list[int] = field(default_factory=list[int])
    """Numbers of its pages, in the order of its tokens."""


def capacity_for(length: int) -> int:
    """Places of the bucket for so many tokens: the next multiple of 64, of 128 above 512, of 256 above 1,024, ...; at most 25% to spare
    above 256."""
    step = max(64, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step


def _room(like: Tensor, *shape: int) -> Tensor:
    """Unwritten numbers of a tensor's type. In a processor's memory they are pages of their own from the system, not the allocator's: from
    that, how much of what was freed before came to be used again was chance, a tenth of a gigabyte more or less from process to process."""
    import torch

    if like.device.type != "cpu":
        return like.new_empty(shape)
    count = math.prod(shape)
    room = mmap.mmap(-1, count * like.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(room, dtype=like.dtype, count=count).view(shape)


@dataclass(slots=True)
class _Layer:
    """Of one bucket."""

    keys: Tensor
    values: Tensor
    num_used: int = 0
    """Slots that were ever used; those after them hold anything."""


class Bucket:
    """Some rows whose length falls into one class, and their keys and values by layer."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: list[Row] = []
        self._kept: dict[int, _Layer] = {}

    def open(self, layer: int, key_HD: tuple[int, int], value_HD: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's keys and values (`ROWS`, heads, capacity, head size); unused places of the rows hold finite numbers."""
        kept = self._kept.get(layer)
        if kept is None:
            key_RHLD, value_RHLD = ((ROWS, num_heads, self.capacity, head_dim) for num_heads, head_dim in (key_HD, value_HD))
            kept = self._kept[layer] = _Layer(_room(like, *key_RHLD), _room(like, *value_RHLD))
        if kept.num_used < len(self.rows):
            for part in (kept.keys, kept.values):
                part[kept.num_used : len(self.rows)] = 0
            kept.num_used = len(self.rows)
        return kept.keys, kept.values

    def add(self, row: Row) -> None:
        """Give a row the last slot. Its keys are the caller's to write."""
        row.bucket, row.slot = self, len(self.rows)
        self.rows.append(row)

    def copy(self, slot: int, target: Bucket, target_slot: int, length: int) -> None:
        """Write the first keys and values of a slot to another bucket's."""
        for layer, kept in self._kept.items():
            key_HD, value_HD = ((part.shape[1], part.shape[3]) for part in (kept.keys, kept.values))
            for old, new in zip((kept.keys, kept.values), target.open(layer, key_HD, value_HD, kept.keys), strict=True):
                new[target_slot, :, :length] = old[slot, :, :length]


class Shelf:
    """All rows under way, by class and bucket. They share nothing."""

    num_shared = 0
    """Tokens that all rows begin with and that no row keeps itself."""

    def __init__(self) -> None:
        self._classes: dict[int, list[Bucket]] = {}

    @property
    def buckets(self) -> list[Bucket]:
        """Those with rows, the shortest first."""
        return [bucket for _, buckets in sorted(self._classes.items()) for bucket in buckets]

    @property
    def rows(self) -> list[Row]:
        """All rows, bucket by bucket, slot by slot: the order of a decoding pass."""
        return [row for bucket in self.buckets for row in bucket.rows]

    def put(self, row: Row) -> None:
        """Give a row its place: the last of its class."""
        self._place(row)

    def _place(self, row: Row) -> Bucket:
        capacity = capacity_for(row.length + 1)
        buckets = self._classes.setdefault(capacity, [])
        if not buckets or len(buckets[-1].rows) == ROWS:
            buckets.append(Bucket(capacity))
        buckets[-1].add(row)
        return buckets[-1]

    def advance(self) -> None:
        """Move rows whose next token does not fit."""
        for row in self.rows:
            bucket, slot = row.bucket, row.slot
            if bucket is not None and row.length + 1 > bucket.capacity:
                bucket.copy(slot, self._place(row), row.slot, row.length)
                self._fill(bucket, slot)

    def take_out(self, row: Row) -> None:
        """A row has ended."""
        if row.bucket is not None:
            self._fill(row.bucket, row.slot)
            row.bucket, row.slot = None, -1

    def _fill(self, bucket: Bucket, slot: int) -> None:
        """The last row of the class takes a slot that became free."""
        buckets = self._classes[bucket.capacity]
        end = buckets[-1]
        last = end.rows.pop()
        if end is not bucket or len(end.rows) != slot:
            end.copy(len(end.rows), bucket, slot, last.length)
            bucket.rows[slot], last.bucket, last.slot = last, bucket, slot
        if not end.rows:
            buckets.pop()


def pages_for(length: int) -> int:
    """Pages of so many tokens."""
    return -(-length // PAGE)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The tokens that the prompts of all rows begin with, and their keys and values by layer, in the form of their passes: read once."""

    num_tokens: int = 0
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict["int", "tuple[Tensor, Tensor]"])


class Pages:
    """All rows under way, page by page, after what they all begin with."""

    def __init__(self, beginning: Beginning | None = None) -> None:
        self.beginning = beginning or Beginning()
        self.rows: list[Row] = []
        self._free: list[int] = []
        self._num_pages = 0
        self._slabs: dict[int, list[tuple[Tensor, Tensor]]] = {}

    @property
    def num_shared(self) -> int:
        """Tokens of the beginning."""
        return self.beginning.num_tokens

    def put(self, row: Row) -> None:
        """Give a row its pages."""
        row.pages = []
        self.rows.append(row)
        self._grow(row)

    def advance(self) -> None:
        """A page more for rows whose next token does not fit."""
        for row in self.rows:
            self._grow(row)

    def take_out(self, row: Row) -> None:
        """A row has ended: its pages are others'."""
        self.rows.remove(row)
        self._free += row.pages
        row.pages = []

    def slabs(self, layer: int, key_page: Sequence[int], value_page: Sequence[int], like: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The layer's keys and values, (SLAB, *a page's shape) each; page n is in slab n // SLAB. Unused places hold anything."""
        slabs = self._slabs.setdefault(layer, [])
        while len(slabs) * SLAB < self._num_pages:
            slabs.append((_room(like, SLAB, *key_page), _room(like, SLAB, *value_page)))
        return slabs

    def _grow(self, row: Row) -> None:
        while len(row.pages) * PAGE <= row.length:
            if not self._free:
                self._free += range(self._num_pages, self._num_pages + SLAB)
                self._num_pages += SLAB
            row.pages.append(self._free.pop())
