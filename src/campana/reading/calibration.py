"""From the margin to P(no answer): temperature scaling with an offset, or isotonic regression; and how good such a probability is.

    calibration = fit_temperature(margins_E, answerable_E)
    calibration.p_no_answer(margins_E)                       # (E,) in 0..1
    quality(p_no_answer_E, answerable_E)                     # AUROC, Brier score, expected calibration error, reliability bins

Fitted on held-out documents only, beside the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from campana.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["temperature", "isotonic"]
NUM_BINS = 15


@dataclass(frozen=True, slots=True)
class Temperature:
    """P = 1 / (1 + exp(-(margin - offset) / temperature)) (Platt 1999; Guo et al. 2017 for networks)."""

    temperature: float
    offset: float

    def p_no_answer(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """(E,) margins -> (E,) probabilities; a margin of +inf is 1."""
        from scipy.special import expit

        return np.asarray(expit((margins - self.offset) / self.temperature))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": "temperature", "temperature": self.temperature, "offset": self.offset}


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A rising function through knots, straight between them, flat outside."""

    margins: tuple[float, ...]
    probabilities: tuple[float, ...]

    def p_no_answer(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """(E,) margins -> (E,) probabilities; a margin of +inf is 1."""
        return np.where(np.isposinf(margins), 1.0, np.interp(margins, self.margins, self.probabilities))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": "isotonic", "margins": list(self.margins), "probabilities": list(self.probabilities)}


Calibration = Temperature | Isotonic


def calibration_from_dict(stored: Mapping[str, Any]) -> Calibration:
    """What `as_dict` gave."""
    if stored.get("kind") == "temperature":
        return Temperature(float(stored["temperature"]), float(stored["offset"]))
    if stored.get("kind") == "isotonic":
        return Isotonic(tuple(stored["margins"]), tuple(stored["probabilities"]))
    raise ModelError(f"no calibration is called {stored.get('kind')!r}", hint="known: temperature, isotonic")


def fit_calibration(kind: Kind, margins: NDArray[np.float64], answerable: NDArray[np.bool_]) -> Calibration | None:
    """Fit either kind. None where the questions are all of one kind: nothing can be learnt from them."""
    finite = np.isfinite(margins)
    margins, answerable = margins[finite], answerable[finite]
    if not answerable.any() or answerable.all():
        return None
    return fit_temperature(margins, answerable) if kind == "temperature" else fit_isotonic(margins, answerable)


def fit_temperature(margins: NDArray[np.float64], answerable: NDArray[np.bool_]) -> Temperature:
    """Least negative log-likelihood, with Platt's smoothed targets: finite even where the margin separates the kinds without error."""
    from scipy.optimize import minimize
    from scipy.special import expit

    positive, negative = int((~answerable).sum()), int(answerable.sum())
    target = np.where(answerable, 1.0 / (negative + 2), (positive + 1.0) / (positive + 2))
    centre, scale = float(np.mean(margins)), float(np.std(margins)) or 1.0
    z = (margins - centre) / scale

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_slope, bias = parameters
        slope = np.exp(log_slope)
        logits = slope * z + bias
        value = float(np.mean(np.logaddexp(0.0, logits) - target * logits))
        error = (np.asarray(expit(logits)) - target) / len(z)
        return value, np.array([float(error @ z) * slope, float(error.sum())])

    # The slope is kept positive: a higher margin is never a likelier answer.
    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(-8.0, 8.0), (-50.0, 50.0)])
    slope = float(np.exp(found.x[0]))
    return Temperature(temperature=scale / slope, offset=centre - scale * float(found.x[1]) / slope)


def fit_isotonic(margins: NDArray[np.float64], answerable: NDArray[np.bool_]) -> Isotonic:
    """Pool adjacent violators (Zadrozny and Elkan 2002); equal margins are pooled first, and each block keeps its two ends as knots."""
    from scipy.optimize import isotonic_regression

    levels, group, counts = np.unique(margins, return_inverse=True, return_counts=True)
    shares = np.bincount(group, weights=(~answerable).astype(float)) / counts
    fitted = isotonic_regression(shares, weights=counts)
    blocks = np.asarray(fitted.blocks)
    ends = np.unique(np.concatenate([blocks[:-1], blocks[1:] - 1]))
    return Isotonic(tuple(float(x) for x in levels[ends]), tuple(float(x) for x in np.asarray(fitted.x)[ends]))


@dataclass(frozen=True, slots=True)
class Quality:
    """Of a probability of no answer, on labelled questions."""

    auroc: float | None
    """Chance that an unanswerable question has the higher probability (ties half); None where all are of one kind."""
    brier: float
    calibration_error: float
    """Expected: mean |share - probability| over bins of equal numbers of questions; equal probabilities are in one bin."""
    bins: tuple[tuple[float, float, int], ...]
    """Reliability: (mean probability, share without an answer, number of questions)."""


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve by ranks (Mann-Whitney), ties half. None where all are of one kind."""
    from scipy.stats import rankdata

    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return None
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def quality(p_no_answer: NDArray[np.float64], answerable: NDArray[np.bool_]) -> Quality:
    """How good the probabilities are."""
    unanswerable = (~answerable).astype(float)
    order = np.argsort(p_no_answer, kind="stable")
    ranked = p_no_answer[order]
    cuts = [int(np.searchsorted(ranked, part[0])) for part in np.array_split(ranked, NUM_BINS)[1:] if len(part)]
    bins: list[tuple[float, float, int]] = []
    error = 0.0
    for part in np.split(order, cuts):
        if len(part):
            said, was = float(p_no_answer[part].mean()), float(unanswerable[part].mean())
            bins.append((said, was, len(part)))
            error += abs(said - was) * len(part) / len(order)
    brier = float(np.mean((p_no_answer - unanswerable) ** 2)) if len(order) else 0.0
    return Quality(auroc(p_no_answer, ~answerable), brier, error, tuple(bins))


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Selective answering: the surest questions first."""

    coverage: tuple[float, ...]
    """Share of all questions that are answered."""
    risk: tuple[float, ...]
    """Mean loss (1 - score; 1 on an unanswerable question) of those."""
    area: float
    """Mean risk over all coverages (AURC, Geifman and El-Yaniv 2017); lower is better."""


def risk_coverage(margins: NDArray[np.float64], answered: NDArray[np.float64], most_points: int = 200) -> RiskCoverage:
    """The curve over all thresholds, of (E,) scores 0..1 of giving the best span; questions of equal margin enter together."""
    order = np.argsort(margins, kind="stable")
    loss = 1.0 - answered[order]
    ranked = margins[order]
    ends = np.nonzero(np.append(ranked[1:] != ranked[:-1], True))[0] if len(order) else np.zeros(0, dtype=np.int64)
    answered = (ends + 1).astype(float)
    risk = np.cumsum(loss)[ends] / answered
    coverage = answered / max(len(order), 1)
    area = float(np.sum(risk * np.diff(np.concatenate([[0.0], coverage])))) if len(order) else 0.0
    shown = np.unique(np.linspace(0, len(ends) - 1, min(most_points, len(ends))).round().astype(int)) if len(ends) else ends
    return RiskCoverage(tuple(float(c) for c in coverage[shown]), tuple(float(r) for r in risk[shown]), area)
