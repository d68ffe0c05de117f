"""A question and its counterparts on one passage: what the edit operators write and contrastive training reads.

    for family in read_families(Path("counterparts.jsonl"), problems):
        family.original(), family.positives(), family.negatives()

One JSON object a line (`campana.triples/1`); offsets are characters, of the passage in `span` and of the question in `edit`:

    {"schema": "campana.triples/1", "id": "q1", "document": "Rome", "passage": "Rome fell in 476.", "question": "When did Rome fall?",
     "span": [13, 16], "counterparts": [
       {"id": "q1#entity:0", "question": "When did Athens fall?", "answerable": false, "span": [13, 16], "operator": "entity",
        "edit": {"start": 9, "end": 13, "old": "Rome", "new": "Athens"}, "seed": 0, "verdict": "unfiltered"},
       {"id": "q1#paraphrase:0", "question": "In what year did Rome fall?", "answerable": true, "span": [13, 16],
        "operator": "paraphrase", "edit": null, "seed": 0, "verdict": "unfiltered"}]}

The span of an unanswerable counterpart is its plausible answer. Counterparts that people wrote have the operator `written`. A filter
keeps what it rejects and says so in `verdict`; training takes what is `unfiltered` or `kept`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from campana.data.files import data_files, read_file
from campana.data.format import DroppedRow
from campana.errors import DataError
from campana.reading.examples import Example, Problems, Span

SCHEMA = "campana.triples/1"
WRITTEN = "written"
"""The operator of counterparts that people wrote (SQuAD 2.0's unanswerable questions)."""

Verdict = Literal["unfiltered", "kept", "still answerable", "no longer answerable"]
"""`still answerable`: meant to be unanswerable, but a reader answers it. `no longer answerable`: meant to keep its answer, and lost it."""
VERDICTS: tuple[str, ...] = get_args(Verdict)
USED: frozenset[str] = frozenset({"unfiltered", "kept"})


@dataclass(frozen=True, slots=True)
class Edit:
    """One replaced piece of the original question: `question[start:end] == old` became `new`."""

    start: int
    end: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Counterpart:
    """Another question on the same passage, close to the original one."""

    id: str
    """Unique in its file: `<question id>#<operator>:<number>`, or the id it had where people wrote it."""
    question: str
    answerable: bool
    span: Span
    """Of the passage: the answer, or the plausible answer of an unanswerable question."""
    operator: str
    """What made it."""
    edit: Edit | None = None
    """None: more than one piece changed, or it is not known which."""
    seed: int | None = None
    """Of the operator's choices; None where it makes none."""
    verdict: Verdict = "unfiltered"

    @property
    def used(self) -> bool:
        """Whether training takes it."""
        return self.verdict in USED


@dataclass(frozen=True, slots=True)
class Family:
    """An answerable question and its counterparts."""

    id: str
    """The question's own id."""
    document: str
    passage: str
    question: str
    span: Span
    """The answer."""
    counterparts: tuple[Counterpart, ...] = ()

    def original(self) -> Example:
        """The question itself."""
        return self._example(self.id, self.question, True, self.span)

    def example(self, other: Counterpart) -> Example:
        """One of its counterparts as a plain question: what data augmentation adds."""
        return self._example(other.id, other.question, other.answerable, other.span)

    def positives(self) -> tuple[Counterpart, ...]:
        """Answerable counterparts that training takes."""
        return tuple(other for other in self.counterparts if other.used and other.answerable)

    def negatives(self) -> tuple[Counterpart, ...]:
        """Unanswerable counterparts that training takes."""
        return tuple(other for other in self.counterparts if other.used and not other.answerable)

    def _example(self, identifier: str, question: str, answerable: bool, span: Span) -> Example:
        return Example(
            id=identifier,
            question=question,
            passage=self.passage,
            document=self.document,
            answerable=answerable,
            texts=(span.of(self.passage),) if answerable else (),
            spans=(span,) if answerable else (),
            plausible=() if answerable else (span,),
            pair_id=None if identifier == self.id else self.id,
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": SCHEMA,
            "id": self.id,
            "document": self.document,
            "passage": self.passage,
            "question": self.question,
            "span": [self.span.start, self.span.end],
            "counterparts": [_counterpart_dict(other) for other in self.counterparts],
        }


def _counterpart_dict(other: Counterpart) -> dict[str, Any]:
    edit = other.edit
    return {
        "id": other.id,
        "question": other.question,
        "answerable": other.answerable,
        "span": [other.span.start, other.span.end],
        "operator": other.operator,
        "edit": None if edit is None else {"start": edit.start, "end": edit.end, "old": edit.old, "new": edit.new},
        "seed": other.seed,
        "verdict": other.verdict,
    }


def write_families(path: Path, families: Iterable[Family]) -> int:
    """Write them one a line, in the form that `read_families` reads back to equal values; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for family in families:
            file.write(json.dumps(family.as_dict(), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_families(path: Path, problems: Problems) -> Iterator[Family]:
    """The families of a JSONL file, in order. Rows that are none are counted in `problems`; so are counterparts with a wrong span.

    DataError for a row of another schema: the file is something else.
    """
    for file in data_files(path):
        for _, number, row in read_file(file, lambda _: True):
            place = f"{file.name}:{number}"
            if isinstance(row, DroppedRow):
                problems.add(row.reason, place)
            elif row is not None and (family := _family(row, place, problems)) is not None:
                yield family


def _family(row: Mapping[str, Any], place: str, problems: Problems) -> Family | None:
    if row.get("schema") != SCHEMA:
        raise DataError(f"its schema is {row.get('schema')!r}, not {SCHEMA!r}", where=place, hint="give a file of `write_families`")
    try:
        passage = str(row["passage"])
        span = _span(row["span"], passage)
        others = [made for other in row["counterparts"] if (made := _checked(other, passage, place, problems)) is not None]
        family = Family(str(row["id"]), str(row["document"]), passage, str(row["question"]), span, tuple(others))
    except (KeyError, TypeError, ValueError) as error:
        problems.add("not a question with counterparts", f"{place} ({error})")
        return None
    return family


def _checked(row: Any, passage: str, place: str, problems: Problems) -> Counterpart | None:
    try:
        return _counterpart(row, passage)
    except (KeyError, TypeError, ValueError) as error:
        problems.add("not a counterpart", f"{place} ({error})")
        return None


def _counterpart(row: Mapping[str, Any], passage: str) -> Counterpart:
    verdict = str(row["verdict"])
    if verdict not in VERDICTS:
        raise ValueError(f"verdict {verdict!r}")
    edit: Mapping[str, Any] | None = row["edit"]
    return Counterpart(
        id=str(row["id"]),
        question=str(row["question"]),
        answerable=bool(row["answerable"]),
        span=_span(row["span"], passage),
        operator=str(row["operator"]),
        edit=None if edit is None else Edit(int(edit["start"]), int(edit["end"]), str(edit["old"]), str(edit["new"])),
        seed=None if row["seed"] is None else int(row["seed"]),
        verdict=cast("Verdict", verdict),
    )


def _span(value: Any, passage: str) -> Span:
    start, end = (int(place) for place in value)
    if not 0 <= start < end <= len(passage):
        raise ValueError(f"span {start}..{end} of {len(passage)} characters")
    return Span(start, end)


def written_families(examples: Iterable[Example]) -> Iterator[Family]:
    """Families from questions that name each other in `pair_id` (one side is enough): the counterparts that people wrote.

    An unanswerable question without a plausible answer, or whose partner is absent or on another passage, is left out.
    """
    kept = {example.id: example for example in examples}
    partners: dict[str, dict[str, None]] = {}
    for example in kept.values():
        if example.pair_id is not None and example.answerable is not None:
            pair = (example.id, example.pair_id) if example.answerable else (example.pair_id, example.id)
            partners.setdefault(pair[0], {})[pair[1]] = None
    for identifier, names in partners.items():
        original = kept.get(identifier)
        if original is None or not original.answerable or not original.spans:
            continue
        found = [kept[name] for name in names if name in kept]
        others = tuple(
            Counterpart(other.id, other.question, False, other.plausible[0], WRITTEN)
            for other in found
            if other.answerable is False and other.plausible and other.passage == original.passage
        )
        if others:
            yield Family(original.id, original.document, original.passage, original.question, original.spans[0], others)
