"""The filter by a reader: unanswerable counterparts that it still answers are set aside, and answerable ones that it lost.

    for family in judged(families, Reader.load(Path("my-reader")), problems):
        write(family)

A verdict is given only where the reader finds the original question's answer: one that fails there says nothing of the edits, and they stay
`unfiltered`. Sure means P(answer) of at least `SURE`: 1 - P(no answer) where the reader is calibrated, else the span's own probability.
Note what this can cost: an edit that fools a weak reader looks the same as one that failed to take the answer away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Protocol

from campana.reading.answer import ReaderAnswer
from campana.reading.examples import Example, Problems, Span
from campana.reading.triples import Counterpart, Family, Verdict

SURE = 0.9
_CHUNK = 64
"""Families read together."""


class Answering(Protocol):
    """What the filter asks of a reader."""

    def answer(self, examples: Iterable[Example], *, threshold: float | None = None, num_candidates: int = 5) -> Iterator[ReaderAnswer]:
        """An answer to each question, in order."""
        ...


def judged(families: Iterable[Family], reader: Answering, problems: Problems) -> Iterator[Family]:
    """The families with verdicts, in order. Streams. What was set aside is counted in `problems` as `<operator>: <verdict>`."""
    rest = iter(families)
    while chunk := list(islice(rest, _CHUNK)):
        asked = [one for family in chunk for one in (family.original(), *(family.example(other) for other in family.counterparts))]
        answers = reader.answer(asked, num_candidates=1)
        for family in chunk:
            original = next(answers)
            mine = list(islice(answers, len(family.counterparts)))
            yield _with_verdicts(family, original, mine, problems)


def _with_verdicts(family: Family, original: ReaderAnswer, answers: list[ReaderAnswer], problems: Problems) -> Family:
    if not _finds(original, family.span):
        problems.add("the reader does not find the question's own answer: its edits stay unfiltered", family.id)
        return family
    made: list[Counterpart] = []
    for other, answer in zip(family.counterparts, answers, strict=True):
        verdict = _verdict(other, answer)
        if verdict != "kept":
            problems.add(f"{other.operator}: {verdict}", other.id)
        made.append(replace(other, verdict=verdict))
    return replace(family, counterparts=tuple(made))


def _verdict(other: Counterpart, answer: ReaderAnswer) -> Verdict:
    found = _finds(answer, other.span)
    if other.answerable:
        return "kept" if found else "no longer answerable"
    return "still answerable" if found and _sureness(answer) >= SURE else "kept"


def _finds(answer: ReaderAnswer, span: Span) -> bool:
    """Whether the reader answers, with a piece of the passage that overlaps the span."""
    return answer.start is not None and answer.end is not None and answer.start < span.end and span.start < answer.end


def _sureness(answer: ReaderAnswer) -> float:
    return answer.nbest[0].probability if answer.p_no_answer is None else 1 - answer.p_no_answer
