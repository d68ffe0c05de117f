"""When to say that there is no answer: where the margin is above a threshold. Fitted on documents that are named and kept with it.

    fitted = fit(margins_E, answered_E, empty_E, documents=["Normans"])
    fitted.value

`answered` is what the best span scores on a question if it is given, `empty` what no answer scores (EM or F1, 0..1). The threshold that
is best on the evaluated questions themselves is an *oracle*: it is reported beside the fitted one, never in its place.

The score as a function of the threshold is a staircase, flat around its top, and the highest step of some hundred questions is a matter of
luck. So the fit smooths the staircase first (`smoothed_threshold`); the oracle is the highest step.

Questions of equal margin are answered together or not at all, so the search looks only between different margins. The official search
takes them one by one and can find a score that no threshold reaches (100 instead of 50 for two questions of equal margin, one right).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from campana.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from campana.reading.examples import Example


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and where it comes from."""

    value: float
    documents: tuple[str, ...]
    """What it was fitted on. Nothing of these documents may be evaluated."""
    num_questions: int
    objective: str
    """`exact` or `f1`, over answerable and unanswerable questions."""
    reached: float
    """The objective there, in percent."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "documents": list(self.documents)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Threshold:
        """What `as_dict` gave."""
        value, reached = float(stored["value"]), float(stored["reached"])
        return cls(value, tuple(stored["documents"]), int(stored["num_questions"]), str(stored["objective"]), reached)


def best_threshold(margins: NDArray[np.float64], answered: NDArray[np.float64], empty: NDArray[np.float64]) -> tuple[float, float]:
    """(threshold, mean score 0..1 there): the best of all thresholds; of those that are as good, the one nearest to 0.

    Arrays (E,). A threshold lies half-way between neighbouring margins, or 1 beyond the outermost; 0 stands for its whole interval, as it
    needs no fitting. Margins of +inf are never answered.
    """
    if not len(margins):
        return 0.0, 0.0
    finite = np.isfinite(margins)
    levels, group = np.unique(margins[finite], return_inverse=True)
    if not len(levels):
        return 0.0, float(empty.mean())
    steps = np.bincount(group, weights=(answered - empty)[finite], minlength=len(levels))
    totals = float(empty.sum()) + np.concatenate([[0.0], np.cumsum(steps)])
    low, high = np.concatenate([[-np.inf], levels]), np.concatenate([levels, [np.inf]])
    # From one level up to below the next, every threshold decides alike.
    middle = np.concatenate([[levels[0] - 1.0], levels[:-1] + np.diff(levels) / 2, [levels[-1] + 1.0]])
    middle = np.where((low <= 0) & (high > 0), 0.0, middle)
    best = np.nonzero(totals >= totals.max() - 1e-9)[0]
    chosen = best[np.argmin(np.abs(middle[best]))]
    return float(middle[chosen]), float(totals[chosen] / len(margins))


BANDWIDTHS_AROUND = 4
"""How many bandwidths beyond the outermost margins a threshold is looked for: there it answers all questions, or none."""
FINENESS = 20
"""Thresholds tried a bandwidth; at most `MOST_TRIED` in all."""
MOST_TRIED = 20_000


def smoothed_threshold(margins: NDArray[np.float64], answered: NDArray[np.float64], empty: NDArray[np.float64]) -> float:
    """The threshold t with the greatest sum of (answered - empty) * Phi((t - margin) / h); of those as good, the one nearest to 0.

    The smoothed maximum score estimator (Horowitz 1992, Econometrica 60), with h = s n^(-1/5), s the smaller of the standard deviation and
    the interquartile range / 1.349 (Silverman 1986, 3.4.2). Arrays (E,). Where margins do not differ: `best_threshold`.
    """
    from scipy.special import ndtr

    finite = np.isfinite(margins)
    known, gains = margins[finite], (answered - empty)[finite]
    spread = min(float(known.std()), float(np.subtract(*np.quantile(known, [0.75, 0.25]))) / 1.349) if len(known) else 0.0
    if spread <= 0:
        return best_threshold(margins, answered, empty)[0]
    bandwidth = spread * len(known) ** -0.2
    low, high = known.min() - BANDWIDTHS_AROUND * bandwidth, known.max() + BANDWIDTHS_AROUND * bandwidth
    tried = np.linspace(low, high, min(MOST_TRIED, math.ceil(FINENESS * (high - low) / bandwidth)))
    parts = np.array_split(tried, math.ceil(len(tried) * len(known) / 1e6))
    totals = np.concatenate([ndtr((part[:, None] - known) / bandwidth) @ gains for part in parts])
    best = np.nonzero(totals >= totals.max() - 1e-9)[0]
    return float(tried[best[np.argmin(np.abs(tried[best]))]])


def fit(
    margins: NDArray[np.float64],
    answered: NDArray[np.float64],
    empty: NDArray[np.float64],
    documents: Iterable[str],
    objective: str = "f1",
) -> Threshold:
    """The threshold for questions such as the held-out ones, and their documents."""
    value = smoothed_threshold(margins, answered, empty)
    reached = float(np.where(margins <= value, answered, empty).mean()) if len(margins) else 0.0
    return Threshold(value, tuple(sorted(set(documents))), len(margins), objective, 100.0 * reached)


def refuse_one_kind(examples: Iterable[Example]) -> None:
    """DataError where the questions are not of both kinds: neither a threshold nor P(no answer) can be fitted on them."""
    if not {True, False} <= {example.answerable for example in examples}:
        raise one_kind()


def one_kind() -> DataError:
    """The error for questions that nothing can be fitted on."""
    return DataError(
        "a threshold cannot be fitted: the questions are all answerable, or none is",
        hint="hold out documents that have both kinds (SQuAD 2.0's is_impossible)",
    )
