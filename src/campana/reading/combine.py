"""Windows of one passage -> one verdict: the margin of no answer over the best span, and the best spans.

How the windows' null scores are combined is a named choice:

- `margin` (default): each span is compared with the null of its *own* window, `null - span`, and the smallest such margin decides. Logits
  of different windows are not on one scale, and a window only knows whether *it* holds the answer: a window without it, however sure,
  changes nothing.
- `lowest-null`: spans by raw score over all windows, against the lowest null of any window (what BERT's script and run_qa do). One window
  that is unsure of everything lowers the bar for all.
- `mean-null`: against the mean null of the windows.
- `highest-null`: against the highest: one window that is sure to be empty empties the passage. For comparison only.

With one window they are all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from campana.reading.settings import Combine

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Of E examples, N spans each."""

    margin: NDArray[np.float64]
    """(E, N): `null - span` of each kept span, best span first: positive where no answer is the better one; +inf where there is no span."""
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    """(E, N): passage tokens, the end inclusive; -1 where there is no span."""


def combine(
    how: Combine,
    num_examples: int,
    of_example: NDArray[np.int64],
    score_WN: NDArray[np.float32],
    start_WN: NDArray[np.int64],
    end_WN: NDArray[np.int64],
    null_W: NDArray[np.float32],
) -> Verdicts:
    """The verdicts of examples from their windows' spans. An example without a window has no span."""
    num_best = score_WN.shape[1]
    null = null_W.astype(np.float64)
    if how == "margin":
        bar_W = null
    else:
        merge = {"lowest-null": np.minimum, "highest-null": np.maximum, "mean-null": np.add}[how]
        bar_E = np.full(num_examples, {"lowest-null": np.inf, "highest-null": -np.inf, "mean-null": 0.0}[how])
        merge.at(bar_E, of_example, null)
        if how == "mean-null":
            bar_E /= np.maximum(np.bincount(of_example, minlength=num_examples), 1)
        bar_W = bar_E[of_example]
    margins = (bar_W[:, None] - score_WN.astype(np.float64)).ravel()
    owners = np.repeat(of_example, num_best)
    starts, ends = start_WN.ravel(), end_WN.ravel()
    order = np.lexsort((ends, starts, margins, owners))
    order = order[starts[order] >= 0]
    sizes = np.bincount(owners[order], minlength=num_examples)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept, rank = order[rank < num_best], rank[rank < num_best]
    margin_EN = np.full((num_examples, num_best), np.inf)
    start_EN = np.full((num_examples, num_best), -1, dtype=np.int64)
    end_EN = start_EN.copy()
    margin_EN[owners[kept], rank] = margins[kept]
    start_EN[owners[kept], rank] = starts[kept]
    end_EN[owners[kept], rank] = ends[kept]
    return Verdicts(margin_EN, start_EN, end_EN)
