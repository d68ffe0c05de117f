"""The scores of a study, aligned: the same prompts, in one order, for every input.

Owns reading `scores.jsonl` folders into columns. Refuses doubled prompts, a prompt with two categories, and values outside 0..1.

    table = read_scores({"full/0": dir_0, "full/1": dir_1})
    values_SN = table.rows(("full/0", "full/1"))       # NaN inside the library marks unscored; it never leaves it

Legend: S seeds, N prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from campana.errors import DataError
from campana.records import Score, read_jsonl
from campana.stats.components import Codes, Floats

ABSENT = "no answer was scored"
"""Why a prompt that other inputs have is unscored in this one."""


@dataclass(frozen=True)
class ScoreTable:
    """All inputs' scores over the union of their prompts."""

    items: tuple[str, ...]
    """Prompt ids, sorted: the order of the rows in the files moves nothing."""
    categories: tuple[str, ...]
    """In the order in which the first input names them."""
    codes: Codes
    """N: each prompt's category, an index of `categories`."""
    values: Mapping[str, Floats]
    """Input -> N values, NaN where unscored."""
    reasons: Mapping[str, Mapping[str, int]]
    """Input -> why answers are unscored, and how many."""

    def rows(self, inputs: Sequence[str]) -> Floats:
        """S x N: one row an input."""
        return np.stack([self.values[name] for name in inputs])


def read_scores(folders: Mapping[str, Path]) -> ScoreTable:
    """Read and align the `scores.jsonl` of every folder. Raises DataError for rows that contradict each other."""
    read = {name: _read_one(folder / "scores.jsonl", name) for name, folder in folders.items()}
    category_of: dict[str, str] = {}
    for name, rows in read.items():
        for row in rows.values():
            known = category_of.setdefault(row.item_id, row.category)
            if known != row.category:
                raise DataError(f"prompt {row.item_id!r} is of category {row.category!r} here and {known!r} elsewhere", where=name)
    if not category_of:
        raise DataError("no scores to measure", hint="the suite gave no answers: look at the generate and check stages")
    categories = tuple(dict.fromkeys(category_of.values()))
    items = tuple(sorted(category_of))
    codes = np.array([categories.index(category_of[item]) for item in items], dtype=np.intp)
    values: dict[str, Floats] = {}
    reasons: dict[str, dict[str, int]] = {}
    for name, rows in read.items():
        found = [rows.get(item) for item in items]
        values[name] = np.array([math.nan if row is None or row.value is None else row.value for row in found])
        counts: dict[str, int] = {}
        for row in found:
            if row is None or row.value is None:
                reason = ABSENT if row is None else row.reason
                counts[reason] = counts.get(reason, 0) + 1
        reasons[name] = counts
    return ScoreTable(items, categories, codes, values, reasons)


def _read_one(path: Path, name: str) -> dict[str, Score]:
    rows: dict[str, Score] = {}
    for row in read_jsonl(path, Score):
        if row.item_id in rows:
            raise DataError(f"prompt {row.item_id!r} is scored twice", where=name, hint="give every prompt of the suite its own id")
        if row.value is not None and not 0.0 <= row.value <= 1.0:
            raise DataError(f"prompt {row.item_id!r} has the score {row.value}, not a number from 0 to 1", where=name)
        rows[row.item_id] = row
    return rows
