"""Exact match and F1 of answers: SQuAD's way for languages that put spaces between words, CMRC's for Chinese.

    score_texts(["the Rome"], ("Rome",), SQUAD)      # a prediction against all accepted answers
    report = summary(rows)                           # HasAns and NoAns apart, and what always abstaining would score

- `squad`: lower case, ASCII punctuation and the articles a, an, the removed, white space collapsed; F1 over the words in common (Rajpurkar
  et al. 2016, 2018). Where the prediction or the answer has no word left, F1 is 1 if both have none, else 0. SQuAD 1.1 and 2.0 score an
  answerable question alike but for answers of which nothing is left; 2.0 does without them where others remain.
- `cmrc`: width folded (NFKC), punctuation of any script removed; a Han character or a word is a unit, and F1 is of the longest common
  run of units (Cui et al. 2019). EM compares what is left. The official script does not fold the width.

An unanswerable question is right where nothing is said. A missing prediction is not scored, and is counted.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from campana.reading.examples import Example

Style = Literal["squad", "cmrc"]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_HAN = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003347f"
_UNITS = re.compile(rf"[{_HAN}\u3040-\u30ff]|[^\s{_HAN}\u3040-\u30ff]+")
_HAN_LETTER = re.compile(rf"[{_HAN}]")


def style_of(examples: Iterable[Example]) -> Style:
    """`cmrc` where most passages hold more Han characters than one in ten, else `squad`."""
    votes = Counter(len(_HAN_LETTER.findall(example.passage[:400])) * 10 > len(example.passage[:400]) for example in examples)
    return "cmrc" if votes[True] > votes[False] else "squad"


@lru_cache(maxsize=1 << 16)
def units(text: str, style: Style) -> tuple[str, ...]:
    """What is compared: words, or Han characters and words."""
    if style == "squad":
        return tuple(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())
    folded = unicodedata.normalize("NFKC", text).lower()
    kept = "".join(char for char in folded if unicodedata.category(char)[0] not in "PS")
    return tuple(_UNITS.findall(kept))


def exact(prediction: str, gold: str, style: Style) -> float:
    """1 where nothing that counts differs."""
    return float(units(prediction, style) == units(gold, style))


def f1(prediction: str, gold: str, style: Style) -> float:
    """Harmonic mean of precision and recall of the units."""
    said, wanted = units(prediction, style), units(gold, style)
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values()) if style == "squad" else _longest_run(said, wanted)
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _longest_run(left: Sequence[str], right: Sequence[str]) -> int:
    best = 0
    before = [0] * (len(right) + 1)
    for unit in left:
        now = [0] * (len(right) + 1)
        for index, other in enumerate(right, 1):
            if unit == other:
                now[index] = before[index - 1] + 1
                best = max(best, now[index])
        before = now
    return best


def score_texts(prediction: str, golds: Sequence[str], style: Style) -> tuple[float, float]:
    """(EM, F1): each the best over the accepted answers. No accepted answer: 1 where the prediction says nothing."""
    accepted = [gold for gold in golds if units(gold, style)] or [""]
    return max(exact(prediction, gold, style) for gold in accepted), max(f1(prediction, gold, style) for gold in accepted)


@dataclass(frozen=True, slots=True)
class Scored:
    """One question's result."""

    id: str
    answerable: bool
    exact: float
    f1: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Of some questions, in percent; None where there is no question of that kind."""

    num_questions: int
    exact: float | None
    f1: float | None
    has_answer_exact: float | None
    has_answer_f1: float | None
    num_has_answer: int
    no_answer_accuracy: float | None
    """EM, which is F1, of the unanswerable questions."""
    num_no_answer: int
    always_empty_exact: float | None
    """What a reader that never answers would score: overall figures say nothing without it."""


def score_predictions(examples: Iterable[Example], predictions: Mapping[str, str], style: Style) -> tuple[list[Scored], list[str]]:
    """(a result for each labelled question that has a prediction, the ids of those that have none)."""
    rows: list[Scored] = []
    missing: list[str] = []
    for example in examples:
        if example.answerable is None:
            continue
        said = predictions.get(example.id)
        if said is None and example.written_id is not None:
            said = predictions.get(example.written_id)
        if said is None:
            missing.append(example.id)
            continue
        golds = example.texts if example.answerable else ()
        rows.append(Scored(example.id, example.answerable, *score_texts(said, golds, style)))
    return rows, missing


def summary(rows: Sequence[Scored]) -> Scores:
    """The means, overall and by kind."""
    has = [row for row in rows if row.answerable]
    no = [row for row in rows if not row.answerable]
    return Scores(
        num_questions=len(rows),
        exact=_percent([row.exact for row in rows]),
        f1=_percent([row.f1 for row in rows]),
        has_answer_exact=_percent([row.exact for row in has]),
        has_answer_f1=_percent([row.f1 for row in has]),
        num_has_answer=len(has),
        no_answer_accuracy=_percent([row.exact for row in no]),
        num_no_answer=len(no),
        always_empty_exact=100.0 * len(no) / len(rows) if rows else None,
    )


def _percent(values: Sequence[Any]) -> float | None:
    return 100.0 * sum(values) / len(values) if values else None
