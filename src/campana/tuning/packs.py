"""Packs: the rows of an optimiser step as the tensors of its forward passes.

A row of n tokens is trained on its first m tokens only, where token m is its last supervised one: what comes after it, and that
token as an input, move no loss. Rows are packed whole, as `data.packing.pack` lays them; positions restart in
each. Refuses a row without a supervised token: it would count in the data and teach nothing.

    packs = packs_of([rows.row(i) for i in step_rows], budget=2048)
    num_supervised = sum(p.targets.numel() for p in packs)

Shapes: T tokens of a pack, N of its positions that predict a supervised token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from campana.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from campana.tuning.segments import Segments

Row = tuple[Any, Any]
"""(ids, supervised): numpy arrays of one length; supervised[i] says that token i is to be predicted from those before it."""


@dataclass(frozen=True, eq=False)
class Pack:
    """One forward pass: whole rows end to end."""

    ids: Tensor
    """(T,) int64."""
    positions: Tensor
    """(T,) int64; restart at 0 in each row."""
    segments: Segments
    predicting: Tensor
    """(N,) int64: the positions whose next token is supervised."""
    targets: Tensor
    """(N,) int64: those next tokens."""
    num_row_tokens: int
    """Tokens of the rows as they are in the data, before what moves no loss was left out."""

    def to(self, device: Any) -> Pack:
        """The same pack on another device."""
        ids_T, positions_T, predicting_N, targets_N = (x.to(device) for x in (self.ids, self.positions, self.predicting, self.targets))
        return Pack(ids_T, positions_T, self.segments.to(device), predicting_N, targets_N, self.num_row_tokens)


def packs_of(rows: Sequence[Row], budget: int, *, alone: bool = False) -> list[Pack]:
    """Rows -> packs of at most `budget` tokens; a longer row is a pack by itself, and with `alone` every row is."""
    from campana.data.packing import pack

    useful = [_useful(ids, supervised) for ids, supervised in rows]
    plan = [[i] for i in range(len(rows))] if alone else pack(useful, budget)
    return [_pack([(*rows[i], useful[i]) for i in members]) for members in plan]


def together(rows: Sequence[Row]) -> Pack:
    """One pack of all rows, in their order."""
    return _pack([(ids, supervised, _useful(ids, supervised)) for ids, supervised in rows])


def _useful(ids: Any, supervised: Any) -> int:
    """How many leading tokens of a row bear on its loss: the index of its last supervised token."""
    found = supervised[1:].nonzero()[0]
    if len(found) == 0:
        raise DataError(
            f"a row of {len(ids)} tokens has no supervised token", hint="prepare the data again: such rows must have been dropped"
        )
    return int(found[-1]) + 1


def _pack(members: Iterable[tuple[Any, Any, int]]) -> Pack:
    import numpy as np
    import torch

    from campana.tuning.segments import Segments

    ids: list[Any] = []
    positions: list[Any] = []
    predicting: list[Any] = []
    targets: list[Any] = []
    lengths: list[int] = []
    num_row_tokens = start = 0
    for row_ids, supervised, end in members:
        wanted = supervised[1 : end + 1].nonzero()[0]
        ids.append(row_ids[:end])
        positions.append(np.arange(end))
        predicting.append(wanted + start)
        targets.append(row_ids[wanted + 1])
        lengths.append(end)
        num_row_tokens += len(row_ids)
        start += end
    ids_T, positions_T, predicting_N, targets_N = (
        torch.from_numpy(np.concatenate(parts).astype(np.int64)) for parts in (ids, positions, predicting, targets)
    )
    return Pack(ids_T, positions_T, Segments.of(lengths), predicting_N, targets_N, num_row_tokens)
