"""Counts over prepared rows for the data report: rows, tokens, learned tokens, and how long rows are."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


class Statistics:
    """Sums over batches of prepared rows; memory grows with the longest row only."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.num_tokens = 0
        self.num_supervised = 0
        self._counts = np.zeros(1, np.int64)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch."""
        counts = np.bincount(np.diff(batch.column("ids").offsets.to_numpy()), minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self.num_rows += batch.num_rows
        self.num_tokens = int(counts @ np.arange(len(counts)))
        self.num_supervised += int(batch.column("num_supervised").to_numpy().sum())

    def lengths(self) -> dict[str, Any]:
        """Quantiles of tokens a row, and a histogram in powers of two: `edges` has one entry more than `counts`."""
        if not self.num_rows:
            return {"min": None, "median": None, "p95": None, "max": None, "mean": None, "histogram": {"edges": [], "counts": []}}
        below = np.cumsum(self._counts)
        present = np.flatnonzero(self._counts)
        edges = [0, *(2**power for power in range(4, int(present[-1]).bit_length() + 1))]
        edges[-1] = max(edges[-1], int(present[-1]) + 1)
        sums = [int(self._counts[low:high].sum()) for low, high in pairwise(edges)]
        return {
            "min": int(present[0]),
            "median": int(np.searchsorted(below, 0.5 * self.num_rows)),
            "p95": int(np.searchsorted(below, 0.95 * self.num_rows)),
            "max": int(present[-1]),
            "mean": self.num_tokens / self.num_rows,
            "histogram": {"edges": edges, "counts": sums},
        }
