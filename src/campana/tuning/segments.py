"""Segments: which tokens of a pack belong together, and how attention batches them without mixing them.

A *pack* lays whole samples end to end. Attention must never cross from one sample to the next, so it gathers
segments of like length into one rectangle `(num_segments, longest)` each; rows that are shorter end in padding, which
causal attention never looks at from a real token. This module refuses nothing: it is arithmetic on lengths.

    segments = Segments.of([5, 4, 40])     # two groups: {40} and {5, 4}
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MIN_FILL = 0.8
"""Segments share a rectangle while the shorter is at least this share of the longer (benchmarks/NOTES.md, Tuning)."""


@dataclass(frozen=True, eq=False)
class Group:
    """Segments that are attended in one call: rectangle cell (b, i) is token `gather[b * longest + i]` of the pack."""

    num_segments: int
    longest: int
    gather: Tensor
    """int64 (num_segments * longest,): the token of each cell; a padding cell repeats its segment's last token."""
    cells: Tensor | None
    """int64 (tokens,): the cells that hold real tokens; None where the rectangle is full."""
    tokens: Tensor
    """int64 (tokens,): the token of each real cell."""


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of one pack of T tokens, in order."""

    lengths: tuple[int, ...]
    groups: tuple[Group, ...]

    @property
    def num_tokens(self) -> int:
        """T."""
        return sum(self.lengths)

    @cached_property
    def boundaries(self) -> Tensor:
        """int32 (segments + 1,): cumulated lengths from 0, as variable-length attention kernels take them."""
        import torch

        return torch.tensor([0, *self.lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)

    @property
    def longest(self) -> int:
        """Tokens of the longest segment."""
        return max(self.lengths)

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Segments:
        """Group segments of the given lengths (all at least 1)."""
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + length)
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        groups: list[list[int]] = []
        for i in order:
            if groups and lengths[i] >= MIN_FILL * lengths[groups[-1][0]]:
                groups[-1].append(i)
            else:
                groups.append([i])
        return cls(lengths=tuple(lengths), groups=tuple(_group([starts[i] for i in g], [lengths[i] for i in g]) for g in groups))

    def to(self, device: object) -> Segments:
        """The same segments with their indices on another device."""
        import torch

        target = torch.device(str(device))
        if target.type == "cpu":
            return self
        moved = tuple(
            Group(g.num_segments, g.longest, g.gather.to(target), None if g.cells is None else g.cells.to(target), g.tokens.to(target))
            for g in self.groups
        )
        return Segments(self.lengths, moved)


def _group(starts: list[int], lengths: list[int]) -> Group:
    import torch

    longest = lengths[0]
    start_B = torch.tensor(starts)[:, None]
    length_B = torch.tensor(lengths)[:, None]
    offset_L = torch.arange(longest)[None, :]
    gather_BL = start_B + torch.minimum(offset_L, length_B - 1)
    real_BL = offset_L < length_B
    full = bool(real_BL.all())
    cells = None if full else real_BL.flatten().nonzero().squeeze(1)
    return Group(len(starts), longest, gather_BL.flatten(), cells, gather_BL[real_BL])
