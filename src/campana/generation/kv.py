"""The keys and values of the answers under way: rows of one length class lie together, so attention needs no copy and no long padding.

It owns where a row's keys lie, their growth, and the compaction when a row leaves. It knows nothing of models or tokens.

    shelf = Shelf()
    shelf.put(row)                    # into the bucket for row.length + 1 tokens
    shelf.advance()                   # rows that outgrew their bucket move to the next
    for bucket in shelf.buckets: ...  # bucket.rows; bucket.open(layer, ...) -> (keys_RHLD, values_RHLD)

The bucket of a row depends on the row's own length alone: what attention reads for a row never depends on its neighbours.

Legend: R rows, H key-value heads, L places, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from campana.generation.engine import Request

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True, eq=False)
class Row:
    """An answer under way."""

    request: Request
    length: int
    """Tokens whose keys and values are kept: the prompt, and all new tokens but the last."""
    token_ids: list[int] = field(default_factory=list[int])
    """New tokens so far."""
    bucket: Bucket | None = None
    slot: int = -1
    """Place in the bucket."""


def capacity_for(length: int) -> int:
    """Places of the bucket for so many tokens: the next multiple of 64, of 128 above 512, of 256 above 1,024, ...; at most 25% to spare
    above 256."""
    step = max(64, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step


class Bucket:
    """Rows whose length falls into one class, and their keys and values by layer."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: list[Row] = []
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def open(self, layer: int, key_HD: tuple[int, int], value_HD: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's keys and values (rows, heads, capacity, head size), with room for all rows; unused places hold finite numbers."""
        pair = self._kept.get(layer)
        if pair is None or pair[0].shape[0] < len(self.rows):
            pair = self._grown(pair, key_HD, value_HD, like)
            self._kept[layer] = pair
        return pair

    def add(self, row: Row) -> None:
        """Give a row the last slot. Its keys are the caller's to write."""
        row.bucket, row.slot = self, len(self.rows)
        self.rows.append(row)

    def remove(self, row: Row) -> None:
        """Take a row out; the last row moves into its slot. The memory of an empty bucket is given back."""
        last = self.rows.pop()
        if last is not row:
            for pair in self._kept.values():
                for kept in pair:
                    kept[row.slot] = kept[last.slot]
            self.rows[row.slot], last.slot = last, row.slot
        row.bucket, row.slot = None, -1
        if not self.rows:
            self._kept.clear()

    def move(self, row: Row, target: Bucket) -> None:
        """Take a row with its keys and values to a larger bucket."""
        slot, length = row.slot, row.length
        target.rows.append(row)
        for layer, (keys, values) in self._kept.items():
            sizes = (keys.shape[1], keys.shape[3]), (values.shape[1], values.shape[3])
            for old, new in zip((keys, values), target.open(layer, *sizes, keys), strict=True):
                new[len(target.rows) - 1, :, :length] = old[slot, :, :length]
        self.remove(row)
        row.bucket, row.slot = target, len(target.rows) - 1

    def _grown(
        self, pair: tuple[Tensor, Tensor] | None, key_HD: tuple[int, int], value_HD: tuple[int, int], like: Tensor
    ) -> tuple[Tensor, Tensor]:
        room = 1 << (len(self.rows) - 1).bit_length()
        grown: list[Tensor] = []
        for part, (num_heads, head_dim) in enumerate((key_HD, value_HD)):
            new = like.new_zeros((room, num_heads, self.capacity, head_dim))
            if pair is not None:
                new[: pair[part].shape[0]] = pair[part]
            grown.append(new)
        return grown[0], grown[1]


class Shelf:
    """All rows under way, by bucket."""

    def __init__(self) -> None:
        self._buckets: dict[int, Bucket] = {}

    @property
    def buckets(self) -> list[Bucket]:
        """Those with rows, the shortest first."""
        return [bucket for _, bucket in sorted(self._buckets.items()) if bucket.rows]

    @property
    def rows(self) -> list[Row]:
        """All rows, bucket by bucket, slot by slot: the order of a decoding pass."""
        return [row for bucket in self.buckets for row in bucket.rows]

    def put(self, row: Row) -> None:
        """Give a new row its place."""
        self._bucket_for(row).add(row)

    def advance(self) -> None:
        """Move rows whose next token does not fit."""
        for row in self.rows:
            if row.bucket is not None and row.length + 1 > row.bucket.capacity:
                row.bucket.move(row, self._bucket_for(row))

    def take_out(self, row: Row) -> None:
        """A row has ended."""
        if row.bucket is not None:
            row.bucket.remove(row)

    def _bucket_for(self, row: Row) -> Bucket:
        capacity = capacity_for(row.length + 1)
        return self._buckets.setdefault(capacity, Bucket(capacity))
