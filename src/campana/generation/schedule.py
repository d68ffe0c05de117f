"""What the packed engine reads when, from lengths alone: its loop follows it, and forecasts count by it. Without torch.

shared_ids([(1, 2, 3, 4), (1, 2, 9)])                            # what all prompts begin with: read once
pack_size(lengths, num_waiting, budget, has_rows=True)           # how many waiting prompts the next pass reads
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile

WORTHWHILE = 256
"""Prompt tokens from which on a pass of its own runs near the matrix products' full rate."""


def shared_ids(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all prompts begin with, at least a token short of each; nothing where reading it once saves less than a pass costs."""
    first, last = min(prompts), max(prompts)  # in the order of words in a dictionary: what these two begin with, all between them do
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    num = min(sum(1 for _ in alike), min(map(len, prompts)) - 1)
    return first[:num] if num * (len(prompts) - 1) >= WORTHWHILE else ()


def pack_size(lengths: Iterable[int], num_waiting: int, budget: int, *, has_rows: bool) -> int:
    """How many of the waiting prompts are read in one pass now, of those that places are free for, whose `lengths` these are: up to
    `budget` tokens, but at least one; none yet, where that is not worth a pass while `has_rows` are under way."""
    count = total = 0
    for length in lengths:
        if count and total + length > budget:
            return count
        count, total = count + 1, total + length
    return count if count == num_waiting or not has_rows or total >= WORTHWHILE else 0
