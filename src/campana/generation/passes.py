"""The passes of the packed engine, over rows of a `Shelf`: read what all prompts begin with, read prompts, read one token of every row.

    shelf = Shelf(read_beginning(forward, shared_ids))   # or Shelf(): nothing is shared
    row = Row(request, len(request.prompt_ids) - shelf.beginning.num_tokens)
    shelf.put(row)
    logits_RV = read_prompts(forward, [row], shelf.beginning)     # after the prompt
    row.token_ids.append(int(logits_RV[0].argmax()))
    logits_RV = read_step(forward, shelf)                         # after the first new token

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from campana.generation.attention import BeginningPass, PromptPass, StepPass
from campana.generation.kv import Beginning, Row, Shelf
from campana.generation.lean import Lent

if TYPE_CHECKING:
    from torch import Tensor


def read_beginning(forward: Lent, token_ids: Sequence[int]) -> Beginning:
    """Read what prompts begin with, once for all; nothing, where a token's bits could depend on what was read with it: only the compiled
    attention is known to be free of that."""
    if forward.compiled is None or not token_ids:
        return Beginning()
    work = BeginningPass(len(token_ids), forward.compiled)
    forward(token_ids, range(len(token_ids)), work, [len(token_ids) - 1])
    return work.beginning if work.is_shareable else Beginning()


def read_prompts(forward: Lent, rows: Sequence[Row], beginning: Beginning) -> Tensor:
    """Read the prompts of rows that lie on a shelf, after their shared `beginning`, in one pass; logits (at least rows, V) after each."""
    first = beginning.num_tokens
    ids = [token for row in rows for token in row.request.prompt_ids[first:]]
    positions = [first + place for row in rows for place in range(row.length)]
    ends = [end - 1 for end in accumulate(row.length for row in rows)]
    return forward(ids, positions, PromptPass(rows, beginning, forward.compiled), ends)


def read_step(forward: Lent, shelf: Shelf) -> Tensor:
    """Read the last token of every row, in one pass; logits (at least rows, V) in the order of `shelf.rows`. All rows grow by one."""
    shelf.advance()
    rows = shelf.rows
    positions = [shelf.beginning.num_tokens + row.length for row in rows]
    logits = forward([row.token_ids[-1] for row in rows], positions, StepPass(shelf, forward.compiled), range(len(rows)))
    for row in rows:
        row.length += 1
    return logits
