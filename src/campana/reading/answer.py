"""What a reader says to one question: an answer with its place, or that there is none and why. The JSON of command and server.

    {"schema": "campana.reading/1", "id": "q1", "answer": "Rome", "start": 3, "end": 7, "p_no_answer": 0.04, "margin": -5.1,
     "threshold": 0.0, "reason": null, "num_windows": 1, "question_cut": false,
     "nbest": [{"text": "Rome", "start": 3, "end": 7, "margin": -5.1, "probability": 0.93}, ...]}

`answer` is null where the reader abstains, and `reason` says why; `nbest[0]` is then what it would have said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from campana.reading.examples import Example
from campana.reading.graphemes import is_plain, snap
from campana.reading.layout import Tokens
from campana.reading.rows import encodable

Reason = Literal["no answer is likelier", "empty passage", "empty question", "no span in the passage"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A span of the passage: `passage[start:end] == text`."""

    text: str
    start: int
    end: int
    margin: float
    """No answer's score less this span's: positive where no answer is the better one."""
    probability: float
    """Of all kept spans and no answer, by softmax of their scores. Not calibrated: `p_no_answer` is."""


@dataclass(frozen=True, slots=True)
class ReaderAnswer:
    """One answer."""

    SCHEMA: ClassVar[str] = "campana.reading/1"

    id: str
    answer: str | None
    """None: the reader abstains."""
    start: int | None
    end: int | None
    p_no_answer: float | None
    """Calibrated probability that the passage has no answer; None where the reader was not calibrated."""
    margin: float | None
    """Of the best span; None where there is no span."""
    threshold: float
    """The reader abstains where the margin is above."""
    reason: Reason | None
    """Why it abstains."""
    num_windows: int
    question_cut: bool
    """Whether the question was too long and its end was not read."""
    nbest: tuple[Candidate, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, schema first."""
        return {"schema": self.SCHEMA, **asdict(self)}

    def to_json(self) -> str:
        """One line; always encodable as UTF-8."""
        line = json.dumps(self.as_dict(), ensure_ascii=False)
        return line if encodable(line) is line else json.dumps(self.as_dict())


@dataclass(frozen=True, eq=False)
class Found:
    """The kept spans of one example before any threshold: (N,) columns, best first, only those that exist."""

    example: Example
    margins: np.ndarray[Any, np.dtype[np.float64]]
    starts: np.ndarray[Any, np.dtype[np.int64]]
    ends: np.ndarray[Any, np.dtype[np.int64]]
    """Passage tokens, the end inclusive."""
    passage: Tokens
    num_windows: int
    question_cut: bool

    @property
    def margin(self) -> float:
        """Of the best span; +inf where there is none."""
        return float(self.margins[0]) if len(self.margins) else float("inf")

    def spans(self) -> Iterator[tuple[int, int]]:
        """Characters of the kept spans, best first, no grapheme cut in two: two spans of tokens may be one of characters."""
        passage = self.example.passage
        spans = zip(self.passage.starts[self.starts].tolist(), self.passage.ends[self.ends].tolist(), strict=True)
        return spans if is_plain(passage) else (snap(passage, start, end) for start, end in spans)

    def text(self) -> str:
        """The best span's text, whatever its margin; "" where there is none."""
        start, end = next(self.spans(), (0, 0))
        return self.example.passage[start:end]


def answer_of(found: Found, threshold: float, p_no_answer: float | None, num_candidates: int) -> ReaderAnswer:
    """The answer at a threshold, with the best `num_candidates` distinct spans."""
    candidates = _candidates(found, num_candidates)
    reason = _reason(found, threshold)
    best = candidates[0] if candidates and reason is None else None
    return ReaderAnswer(
        id=found.example.id,
        answer=best.text if best else None,
        start=best.start if best else None,
        end=best.end if best else None,
        p_no_answer=p_no_answer,
        margin=found.margin if len(found.margins) else None,
        threshold=threshold,
        reason=reason,
        num_windows=found.num_windows,
        question_cut=found.question_cut,
        nbest=tuple(candidates),
    )


def _reason(found: Found, threshold: float) -> Reason | None:
    if not found.example.passage.strip():
        return "empty passage"
    if not found.example.question.strip():
        return "empty question"
    if not len(found.margins):
        return "no span in the passage"
    return "no answer is likelier" if found.margin > threshold else None


def _candidates(found: Found, most: int) -> list[Candidate]:
    scores = np.append(-found.margins, 0.0)  # no answer's own score is the zero of all margins
    weights = np.exp(scores - scores.max())
    passage, chosen = found.example.passage, dict[tuple[int, int], Candidate]()
    for span, margin, probability in zip(found.spans(), found.margins.tolist(), (weights / weights.sum()).tolist(), strict=False):
        if span not in chosen:
            start, end = span
            chosen[span] = Candidate(passage[start:end], start, end, margin, probability)
            if len(chosen) >= most:
                break
    return list(chosen.values())


def predictions(answers: Sequence[ReaderAnswer]) -> dict[str, str]:
    """The official predictions file's form: id -> answer, "" for none."""
    return {answer.id: answer.answer or "" for answer in answers}
