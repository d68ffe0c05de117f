"""The passes of the packed engine: read what all prompts begin with, read prompts, read one token of every row.

    kept = open_rows(forward, shared_ids)                         # () : nothing is shared
    row = Row(request, len(request.prompt_ids) - kept.num_shared)
    kept.put(row)
    logits_RV = read_prompts(forward, [row], kept)                # after the prompt
    row.token_ids.append(int(logits_RV[0].argmax()))
    logits_RV = read_step(forward, kept)                          # after the first new token

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from campana.generation.attention import PromptPass, StepPass
from campana.generation.kv import Pages, Row, Shelf
from campana.generation.lean import Lent

if TYPE_CHECKING:
    from torch import Tensor


def open_rows(forward: Lent, token_ids: Sequence[int] = ()) -> Shelf | Pages:
    """Where the rows of a run keep their keys, after `token_ids`, which all begin with: pages where compiled code computes the attention of
    all layers. Else a shelf, and nothing is shared: with torch a token's bits could depend on what was read with it."""
    if forward.paged is None:
        return Shelf()
    ids = token_ids or (0,)
    work = forward.paged.beginning(len(ids))
    forward(ids, range(len(ids)), work, [len(ids) - 1])
    if not work.is_taken:
        return Shelf()
    return Pages(work.beginning if token_ids else None)


def read_prompts(forward: Lent, rows: Sequence[Row], kept: Shelf | Pages) -> Tensor:
    """Read the prompts of rows that are in `kept`, after what all begin with, in one pass; logits (at least rows, V) after each."""
    first = kept.num_shared
    ids = [token for row in rows for token in row.request.prompt_ids[first:]]
    positions = [first + place for row in rows for place in range(row.length)]
    ends = [end - 1 for end in accumulate(row.length for row in rows)]
    if isinstance(kept, Pages):
        assert forward.paged is not None
        return forward(ids, positions, forward.paged.prompts(rows, kept), ends)
    return forward(ids, positions, PromptPass(rows, forward.compiled), ends)


def read_step(forward: Lent, kept: Shelf | Pages) -> Tensor:
    """Read the last token of every row, in one pass; logits (at least rows, V) in the order of `kept.rows`. All rows grow by one."""
    kept.advance()
    rows = kept.rows
    if isinstance(kept, Pages):
        assert forward.paged is not None
        work = forward.paged.step(kept)
    else:
        work = StepPass(kept)
    positions = [kept.num_shared + row.length for row in rows]
    logits = forward([row.token_ids[-1] for row in rows], positions, work, range(len(rows)))
    for row in rows:
        row.length += 1
    return logits
