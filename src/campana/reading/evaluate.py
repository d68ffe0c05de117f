"""How well a reader reads: at threshold 0, at the fitted one and at the oracle, each named; and how far its P(no answer) can be trusted.

    result = evaluate(reader, examples)                   # Evaluation
    reader = fitted(reader, examples, kind="temperature") # the same reader with threshold and calibration from these documents

An evaluation on documents that the threshold was fitted on, or that the reader learnt from, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from campana.errors import DataError
from campana.reading.answer import Found
from campana.reading.calibration import Calibration, Kind, Quality, RiskCoverage, auroc, fit_calibration, quality, risk_coverage
from campana.reading.examples import Example
from campana.reading.reader import Reader
from campana.reading.scoring import Scored, Scores, Style, score_texts, style_of, summary
from campana.reading.threshold import Threshold, best_threshold, fit, one_kind

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Margins:
    """What a reader found on E labelled questions, as columns."""

    ids: tuple[str, ...]
    documents: tuple[str, ...]
    margins: NDArray[np.float64]
    answerable: NDArray[np.bool_]
    answered: NDArray[np.float64]
    """(E, 2): EM and F1 of the best span."""
    empty: NDArray[np.float64]
    """(E, 2): EM and F1 of saying nothing."""

    def at(self, threshold: float) -> list[Scored]:
        """Each question's result at a threshold."""
        chosen = np.where((self.margins <= threshold)[:, None], self.answered, self.empty)
        return [Scored(i, bool(a), float(e), float(f)) for i, a, (e, f) in zip(self.ids, self.answerable, chosen, strict=True)]


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """Scores at one threshold, in percent."""

    name: str
    """`zero`, `fitted`, `oracle for exact` or `oracle for f1`."""
    threshold: float
    scores: Scores


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Of a reader on a file."""

    style: Style
    results: tuple[AtThreshold, ...]
    auroc: float | None
    """Of the margin, for telling unanswerable questions from answerable ones."""
    probability: Quality | None
    """Of P(no answer); None for a reader that is not calibrated."""
    selective: RiskCoverage
    """Risk is 1 - EM of the questions answered."""
    num_unlabelled: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def margins_of(found: Iterable[Found], style: Style) -> Margins:
    """Score the best span and the empty answer of each question; unlabelled questions are left out."""
    kept: list[tuple[Example, float, tuple[float, float], tuple[float, float]]] = []
    for item in found:
        example = item.example
        if example.answerable is not None:
            golds = example.texts if example.answerable else ()
            kept.append((example, item.margin, score_texts(item.text(), golds, style), score_texts("", golds, style)))
    return Margins(
        tuple(example.id for example, *_ in kept),
        tuple(example.document for example, *_ in kept),
        np.array([margin for _, margin, _, _ in kept], dtype=np.float64),
        np.array([bool(example.answerable) for example, *_ in kept], dtype=bool),
        np.array([score for *_, score, _ in kept], dtype=np.float64).reshape(-1, 2),
        np.array([score for *_, score in kept], dtype=np.float64).reshape(-1, 2),
    )


def judge(columns: Margins, threshold: Threshold | None, calibration: Calibration | None, style: Style, num_unlabelled: int) -> Evaluation:
    """The evaluation of what a reader found."""
    thresholds = [("zero", 0.0)]
    if threshold is not None:
        thresholds.append(("fitted", threshold.value))
    for column, name in enumerate(("exact", "f1")):
        thresholds.append((f"oracle for {name}", best_threshold(columns.margins, columns.answered[:, column], columns.empty[:, column])[0]))
    results = tuple(AtThreshold(name, value, summary(columns.at(value))) for name, value in thresholds)
    probability = quality(calibration.p_no_answer(columns.margins), columns.answerable) if calibration and len(columns.ids) else None
    unanswerable_lost = np.where(columns.answerable, columns.answered[:, 0], 0.0)
    return Evaluation(
        style,
        results,
        auroc(columns.margins, ~columns.answerable),
        probability,
        risk_coverage(columns.margins, unanswerable_lost),
        num_unlabelled,
    )


def evaluate(reader: Reader, examples: Sequence[Example], style: Style | None = None) -> Evaluation:
    """Read the questions and score the answers. DataError: documents the reader was fitted or trained on, or nothing labelled."""
    refuse_seen(reader, examples)
    style = style or style_of(examples)
    columns = margins_of(reader.find(examples), style)
    if not columns.ids:
        raise DataError("no question here says whether it has an answer", hint='rows need "answers" or "is_impossible" to be scored')
    return judge(columns, reader.threshold, reader.calibration, style, len(examples) - len(columns.ids))


def fitted(
    reader: Reader, examples: Sequence[Example], kind: Kind = "temperature", objective: str = "f1", style: Style | None = None
) -> Reader:
    """The reader with a threshold and a calibration fitted on these held-out questions. DataError where there is nothing to fit on."""
    refuse_seen(replace(reader, threshold=None), examples)
    columns = margins_of(reader.find(examples), style or style_of(examples))
    calibration = fit_calibration(kind, columns.margins, columns.answerable)
    if calibration is None:
        raise one_kind()
    column = 0 if objective == "exact" else 1
    threshold = fit(columns.margins, columns.answered[:, column], columns.empty[:, column], columns.documents, objective)
    return replace(reader, threshold=threshold, calibration=calibration)


def refuse_seen(reader: Reader, examples: Iterable[Example]) -> None:
    """DataError where documents are among those that the reader learnt from or its threshold was fitted on."""
    seen: Mapping[str, Iterable[str]] = {
        "the threshold was fitted on": reader.threshold.documents if reader.threshold else (),
        "the reader was trained on": reader.about.get("documents") or (),
    }
    here = {example.document for example in examples}
    for what, documents in seen.items():
        if both := sorted(here & set(documents)):
            raise DataError(
                f"{what} {len(both)} of these documents, such as {both[0]!r}: the result would say nothing",
                hint="evaluate on other documents (--documents, --not-documents)",
            )
