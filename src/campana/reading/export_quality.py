"""What rounding weights to int8 costs: both readers answer the same held-out questions, and are scored alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from campana.errors import DataError
from campana.reading.evaluate import AtThreshold, judge, margins_of, refuse_seen
from campana.reading.examples import Example
from campana.reading.reader import Reader
from campana.reading.scoring import style_of


@dataclass(frozen=True, slots=True)
class Loss:
    """Of int8 against float32 on the same questions, at the threshold in use."""

    documents: tuple[str, ...]
    num_asked: int
    before: AtThreshold
    after: AtThreshold
    auroc: tuple[float | None, float | None]
    """Before and after."""
    num_same_answers: int
    """Questions answered with the same text, or not answered by either."""
    median_margin_shift: float
    """Of margin after less margin before. A threshold fitted on float32 is off by about so much: `campana read calibrate` fits it again."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def quality_loss(before: Reader, after: Reader, examples: Sequence[Example]) -> Loss:
    """Let both readers answer. DataError where nothing is labelled, or a reader has seen one of the documents."""
    refuse_seen(before, examples)
    style = style_of(examples)
    found = [list(reader.find(examples)) for reader in (before, after)]
    columns = [margins_of(items, style) for items in found]
    if not columns[0].ids:
        raise DataError("no held-out question says whether it has an answer", hint='rows need "answers" or "is_impossible" to be scored')
    judged = [judge(column, before.threshold, None, style, 0) for column in columns]
    name = "fitted" if before.threshold else "zero"
    at = [next(result for result in evaluation.results if result.name == name) for evaluation in judged]
    said = [[item.text() if item.margin <= before.bar else "" for item in items] for items in found]
    margins = np.array([[item.margin for item in items] for items in found])
    both = np.isfinite(margins).all(axis=0)
    return Loss(
        documents=tuple(sorted({example.document for example in examples})),
        num_asked=len(examples),
        before=at[0],
        after=at[1],
        auroc=(judged[0].auroc, judged[1].auroc),
        num_same_answers=sum(a == b for a, b in zip(*said, strict=True)),
        median_margin_shift=float(np.median((margins[1] - margins[0])[both])) if both.any() else 0.0,
    )
