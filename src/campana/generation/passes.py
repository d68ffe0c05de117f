"""The two passes of the packed engine, over rows of a `Shelf`: read prompts, and read one token of every row.

    shelf.put(row)
    logits_RV = read_prompts(forward, [row])     # after the prompt
    row.token_ids.append(int(logits_RV[0].argmax()))
    logits_RV = read_step(forward, shelf)        # after the first new token

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from campana.generation.attention import PromptPass, StepPass
from campana.generation.kv import Row, Shelf
from campana.generation.lean import Lent

if TYPE_CHECKING:
    from torch import Tensor


def read_prompts(forward: Lent, rows: Sequence[Row]) -> Tensor:
    """Read the prompts of rows that lie on a shelf, in one pass; logits (at least rows, V) after each prompt."""
    ids = [token for row in rows for token in row.request.prompt_ids]
    positions = [place for row in rows for place in range(row.length)]
    ends = [end - 1 for end in accumulate(row.length for row in rows)]
    return forward(ids, positions, PromptPass(rows, forward.compiled), ends)


def read_step(forward: Lent, shelf: Shelf) -> Tensor:
    """Read the last token of every row, in one pass; logits (at least rows, V) in the order of `shelf.rows`. All rows grow by one."""
    shelf.advance()
    rows = shelf.rows
    logits = forward([row.token_ids[-1] for row in rows], [row.length for row in rows], StepPass(shelf, forward.compiled), range(len(rows)))
    for row in rows:
        row.length += 1
    return logits
