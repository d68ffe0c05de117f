"""Intervals of a reader's figures on one set of questions: a bootstrap over passages, whose questions stand or fall together.

    intervals(columns, passage_E, threshold=0.0)["f1"]      # {"value": 71.2, "low": 69.9, "high": 72.6}, in percent; auroc 0..1

They tell how far other passages would move the figure, not how far another training run would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from campana.reading.evaluate import Margins

RESAMPLES = 1000
CONFIDENCE = 0.95
BLOCK = 100
"""Resamples that are worked out at once: memory is this times the number of questions."""


def intervals(columns: Margins, passage: NDArray[np.int64], threshold: float, seed: int = 0) -> dict[str, dict[str, float]]:
    """Percentile intervals (Efron 1979) of EM, F1, HasAns F1, NoAns accuracy and AUROC at a threshold.

    `passage` (E,): the passage of each question, numbered from 0. A figure that no question bears on is left out.
    """
    scores_E2 = np.where((columns.margins <= threshold)[:, None], columns.answered, columns.empty)
    has = columns.answerable
    parts: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]] = {
        "exact": (scores_E2[:, 0], np.ones(len(has), dtype=bool)),
        "f1": (scores_E2[:, 1], np.ones(len(has), dtype=bool)),
        "has_answer_exact": (scores_E2[:, 0], has),
        "has_answer_f1": (scores_E2[:, 1], has),
        "no_answer_accuracy": (scores_E2[:, 0], ~has),
    }
    number = int(passage.max()) + 1
    random = np.random.default_rng(seed)
    drawn: dict[str, list[NDArray[np.float64]]] = {}
    whole = np.ones((1, len(has)))
    order = _Order.of(columns.margins, has)
    value = {name: _mean(whole, *part)[0] * 100 for name, part in parts.items() if part[1].any()}
    if order.has_both:
        value["auroc"] = order.auroc(whole)[0]
    for _ in range(RESAMPLES // BLOCK):
        weights_RE = random.multinomial(number, np.full(number, 1 / number), size=BLOCK).astype(float)[:, passage]
        for name in value:
            figure = order.auroc(weights_RE) if name == "auroc" else _mean(weights_RE, *parts[name]) * 100
            drawn.setdefault(name, []).append(figure)
    tail = (1 - CONFIDENCE) / 2
    found: dict[str, dict[str, float]] = {}
    for name, blocks in drawn.items():
        low, high = np.nanquantile(np.concatenate(blocks), [tail, 1 - tail])
        found[name] = {"value": float(value[name]), "low": float(low), "high": float(high)}
    return found


def _mean(weights_RE: NDArray[np.float64], scores_E: NDArray[np.float64], counted_E: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(R,) weighted means over the questions that count; NaN where none was drawn."""
    weights = weights_RE[:, counted_E]
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ scores_E[counted_E]) / total)


class _Order:
    """Questions by margin, for weighted areas under the ROC curve."""

    def __init__(self, order: NDArray[np.int64], first: NDArray[np.int64], has: NDArray[np.bool_]) -> None:
        self._order, self._first, self._has = order, first, has

    @classmethod
    def of(cls, margins: NDArray[np.float64], has: NDArray[np.bool_]) -> _Order:
        order = np.argsort(margins, kind="stable")
        levels = margins[order]
        first = np.nonzero(np.concatenate([[True], levels[1:] != levels[:-1]]))[0]
        return cls(order, first, has[order])

    @property
    def has_both(self) -> bool:
        return bool(self._has.any() and not self._has.all())

    def auroc(self, weights_RE: NDArray[np.float64]) -> NDArray[np.float64]:
        """(R,): the weighted chance that an unanswerable question has the higher margin; ties half. NaN where a kind was not drawn."""
        weights = weights_RE[:, self._order]
        with_answer = np.add.reduceat(np.where(self._has, weights, 0.0), self._first, axis=1)
        without = np.add.reduceat(np.where(self._has, 0.0, weights), self._first, axis=1)
        below = np.cumsum(with_answer, axis=1) - with_answer / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((without * below).sum(axis=1) / (without.sum(axis=1) * with_answer.sum(axis=1)))
