"""Logits -> the best spans of each window, for a whole batch at once. The only decoder: training, evaluation, command and server.

    found = decode(start_BL, end_BL, can_start_BL, can_end_BL, null_index=0, num_best=20, max_answer_tokens=30)

The score of a span is the sum of its first token's start logit and its last token's end logit. Exact: the N best of all spans of at most
K tokens, in the order (score down, start up, end up). The N best spans begin at the N starts whose own best span is best, so only N x K
of the L x K spans are ever compared.

B: windows; L: tokens; N: spans kept; K: longest answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from campana.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Decoded:
    """The best spans of B windows. Where a window has fewer than N spans, the rest has score -inf and positions -1."""

    score: Tensor
    """(B, N)"""
    start: Tensor
    end: Tensor
    """(B, N): row positions, the end inclusive."""
    null: Tensor
    """(B,): the score of no answer: start and end logit of the null token."""


def decode(
    start_BL: Tensor, end_BL: Tensor, can_start_BL: Tensor, can_end_BL: Tensor, *, null_index: int, num_best: int, max_answer_tokens: int
) -> Decoded:
    """The `num_best` best spans of each window. Raises ModelError for logits that are not finite where they count."""
    import torch
    from torch.nn import functional

    start_BL, end_BL = start_BL.float(), end_BL.float()
    null_B = start_BL[:, null_index] + end_BL[:, null_index]
    lowest = float("-inf")
    starts = start_BL.masked_fill(~can_start_BL, lowest)
    ends = end_BL.masked_fill(~can_end_BL, lowest)
    if not bool((torch.isfinite(starts) == can_start_BL).all() & (torch.isfinite(ends) == can_end_BL).all() & torch.isfinite(null_B).all()):
        raise ModelError("the reader's logits are not finite (NaN or infinity)", hint="the weights are damaged, or training diverged")
    length = start_BL.shape[1]
    band = min(max_answer_tokens, length)
    padded = functional.pad(ends, (0, band - 1), value=lowest)
    best_end = functional.max_pool1d(padded.unsqueeze(1), band, stride=1).squeeze(1)
    kept = min(num_best, length)
    # Stable sorts make ties fall to the earlier span; the chosen starts go back into order so that the last sort sees (start, end) order.
    order = torch.sort(starts + best_end, dim=1, descending=True, stable=True).indices[:, :kept].sort(dim=1).values
    ends_BNK = padded.unfold(1, band, 1).gather(1, order.unsqueeze(-1).expand(-1, -1, band))
    scores = (starts.gather(1, order).unsqueeze(-1) + ends_BNK).flatten(1)
    score, place = torch.sort(scores, dim=1, descending=True, stable=True)
    score, place = score[:, :num_best], place[:, :num_best]
    first = order.gather(1, place // band)
    last = first + place % band
    absent = torch.isneginf(score)
    found = Decoded(score, first.masked_fill(absent, -1), last.masked_fill(absent, -1), null_B)
    missing = num_best - score.shape[1]
    if missing <= 0:
        return found
    fill = (0, missing)
    return Decoded(
        functional.pad(found.score, fill, value=lowest),
        functional.pad(found.start, fill, value=-1),
        functional.pad(found.end, fill, value=-1),
        null_B,
    )
