"""Shares: which rows of a step each rank takes, and in how many passes. All ranks make as many, as each pass is theirs together.

    for pack in share_of(rows, budget=2048, ranks=ranks): ...     # None where this rank has no rows in a pass

With one rank these are `packs_of`. With more, rows go longest first to the pack that has the fewest tokens, so that ranks do not
wait for each other; the plan follows from the rows' lengths alone, so every rank makes the same one. Refuses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from campana.data.packing import spread
from campana.tuning.packs import packs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from campana.tuning.packs import Pack, Row
    from campana.tuning.ranks import Ranks


def share_of(rows: Sequence[Row], budget: int, ranks: Ranks, *, alone: bool = False) -> list[Pack | None]:
    """This rank's packs, one a pass; None: no rows. At most `budget` tokens each, but for a longer row; `alone`: one row each."""
    if ranks.count == 1:
        return list(packs_of(rows, budget, alone=alone))
    plan = plan_passes([len(ids) for ids, _ in rows], budget, ranks.count, alone=alone)
    return [_pack([rows[i] for i in members[ranks.index]]) for members in plan]


def plan_passes(lengths: Sequence[int], budget: int, count: int, *, alone: bool = False) -> list[list[list[int]]]:
    """Passes, of each rank's rows: the fewest passes in which no pack is above `budget`, or the longest row where that is longer."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    most = max(budget, *lengths)
    num_passes = -(-sum(lengths) // (most * count))
    packs = [[i] for i in order] if alone else spread(order, lengths, num_passes * count)
    while max(sum(lengths[i] for i in members) for members in packs) > most:
        num_passes += 1
        packs = spread(order, lengths, num_passes * count)
    packs += [[] for _ in range(-len(packs) % count)]
    return [packs[start : start + count] for start in range(0, len(packs), count)]


def filler(row: Row) -> Pack:
    """The smallest pack of a row: what a rank without rows computes, at weight 0, so that the others get its parts of the weights."""
    ids, supervised = row
    end = int(supervised[1:].argmax()) + 2
    return packs_of([(ids[:end], supervised[:end])], end)[0]


def _pack(rows: Sequence[Row]) -> Pack | None:
    return packs_of(rows, sum(len(ids) for ids, _ in rows))[0] if rows else None
