"""A file of questions as the suite of a study: what its items are, and a reader's answers, scores and figures on them.

    answer_questions(reader_dir, suite_path, max_items=None, precision="fp32", out_dir=out, progress=progress)
    score_questions(suite_path, out / "answers.jsonl", "f1", other_out)
    items = question_items(suite_path, None)              # for people: passage and question, and the accepted answer

Questions that do not say whether they have an answer cannot be scored, and are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from campana.errors import DataError
from campana.models.load import Precision
from campana.reading.examples import Example, Problems
from campana.reading.files import load_examples
from campana.reading.scoring import score_texts, style_of
from campana.records import Answer, Item, Score, read_jsonl, write_jsonl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from campana.reading.reader import Reader
    from campana.reading.training.job import Progress
    from campana.reading.windows import Batch

SCHEMA = "campana.reading.result/1"
HAS_ANSWER, NO_ANSWER = "has answer", "no answer"
ABSTAINED = ""
"""The answer that says nothing."""


def questions_of(path: Path, max_items: int | None) -> list[Example]:
    """The questions of a suite that can be scored; at most so many, evenly over answerable and unanswerable ones.

    Each kind gives its next question in a hash order of ids, in turn, so a smaller choice is inside a larger one.
    """
    examples = [example for example in load_examples(path) if example.answerable is not None]
    if not examples:
        raise DataError("no question here says whether it has an answer", where=str(path), hint='rows need "answers" or "is_impossible"')
    if max_items is None or max_items >= len(examples):
        return examples
    ranked: list[tuple[int, bool, str]] = []
    for answerable in (True, False):
        kind = [example.id for example in examples if example.answerable is answerable]
        kind.sort(key=lambda identifier: hashlib.sha256(identifier.encode()).digest())
        ranked += [(place, answerable, identifier) for place, identifier in enumerate(kind)]
    chosen = {identifier for _, _, identifier in sorted(ranked)[:max_items]}
    return [example for example in examples if example.id in chosen]


def question_items(path: Path, max_items: int | None) -> list[Item]:
    """The suite as items; the reference is the first accepted answer."""
    examples = questions_of(path, max_items)
    language = "zh" if style_of(examples) == "cmrc" else "en"
    return [
        Item(
            id=example.id,
            category=_category(example),
            messages=({"role": "user", "content": f"{example.passage}\n\n{example.question}"},),
            language=language,
            reference=example.texts[0] if example.texts else None,
        )
        for example in examples
    ]


def answer_questions(
    *,
    reader_dir: Path,
    suite_path: Path,
    max_items: int | None,
    precision: Precision,
    out_dir: Path,
    progress: Progress,
    cache_dir: Path | None = None,
) -> Mapping[str, Any]:
    """Let a reader answer a suite. Writes `answers.jsonl`, `readings.jsonl` and `reading.json`; returns the meter.

    `cache_dir`: where compiled code is kept; None: the cache folder in the person's home.

    DataError where the reader was trained or its threshold fitted on documents of the suite.
    """
    from campana.reading.evaluate import judge, margins_of, refuse_seen
    from campana.reading.intervals import intervals
    from campana.reading.reader import Reader
    from campana.tuning.clock import Clock, peak_memory_bytes

    clock = Clock()
    with clock("load"):
        reader = Reader.load(reader_dir, precision, cache_dir)
        examples = questions_of(suite_path, max_items)
        refuse_seen(reader, examples)
    reader, read = _counting(reader)
    found: list[Any] = []
    with clock("read"), (out_dir / "readings.jsonl").open("w", encoding="utf-8") as readings:
        answers: list[Answer] = []
        for item in reader.find(examples):
            said = reader.say(item)
            readings.write(said.to_json() + "\n")
            answers.append(Answer(said.id, (ABSTAINED if said.answer is None else said.answer,), "stop", len(item.passage), 0))
            found.append(item)
            progress(len(found), len(examples), "questions")
    write_jsonl(out_dir / "answers.jsonl", answers)
    with clock("score"):
        style = style_of(examples)
        columns = margins_of(found, style)
        evaluation = judge(columns, reader.threshold, reader.calibration, style, 0)
        passages = passage_numbers(examples)
        result = {
            "schema": SCHEMA,
            **evaluation.as_dict(),
            "threshold": reader.threshold.as_dict() if reader.threshold else None,
            "intervals": {at.name: intervals(columns, passages, at.threshold) for at in evaluation.results},
        }
        (out_dir / "reading.json").write_text(json.dumps(_finite(result), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return {
        "seconds": {phase: round(spent, 3) for phase, spent in sorted(clock.seconds.items())},
        "tokens": read.tokens,
        "flops": reader.shape.forward_flops(read.tokens, read.squared) if reader.shape else None,
        "questions": len(examples),
        "questions_per_second": len(examples) / max(clock.seconds["read"], 1e-9),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def passage_numbers(examples: Sequence[Example]) -> NDArray[np.int64]:
    """(E,) the place of each question's passage among the sorted passages. An array of texts would be as wide as the longest."""
    import numpy as np

    place = {passage: number for number, passage in enumerate(sorted({example.passage for example in examples}))}
    return np.array([place[example.passage] for example in examples], dtype=np.int64)


@dataclass
class _Read:
    """What an encoder has read: tokens of all rows without their padding, and the sum of the rows' squared lengths."""

    tokens: int = 0
    squared: int = 0


def _counting(reader: Reader) -> tuple[Reader, _Read]:
    """The same reader, and a count that grows as it reads."""
    read = _Read()

    def forward(batch: Batch) -> tuple[Tensor, Tensor]:
        lengths = batch.attention_mask.sum(axis=1).astype(int)
        read.tokens += int(lengths.sum())
        read.squared += int((lengths**2).sum())
        return reader.forward(batch)

    return replace(reader, forward=forward), read


def score_questions(suite_path: Path, answers_path: Path, score: Literal["f1", "exact"], out_dir: Path) -> Mapping[str, Any]:
    """Score answers against the accepted ones. Writes `scores.jsonl`; returns the meter."""
    known = {example.id: example for example in load_examples(suite_path, Problems())}
    answers = list(read_jsonl(answers_path, Answer))
    style = style_of([known[answer.item_id] for answer in answers])
    rows = [_score(known[answer.item_id], answer, score, style) for answer in answers]
    write_jsonl(out_dir / "scores.jsonl", rows)
    return {"num_items": len(rows), "num_unscored": 0}


def _score(example: Example, answer: Answer, score: Literal["f1", "exact"], style: Any) -> Score:
    said = answer.turns[0]
    exact, f1 = score_texts(said, example.texts if example.answerable else (), style)
    if example.answerable:
        reason = "abstained, but there is an answer" if said == ABSTAINED else f"F1 {f1:.2f}, exact {exact:.0f}"
    else:
        reason = "rightly abstained" if said == ABSTAINED else "answered, but there is no answer"
    parts = ({"check": "f1", "value": f1, "reason": ""}, {"check": "exact", "value": exact, "reason": ""})
    return Score(example.id, _category(example), f1 if score == "f1" else exact, reason, parts)


def _category(example: Example) -> str:
    return HAS_ANSWER if example.answerable else NO_ANSWER


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value
