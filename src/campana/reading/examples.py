"""A question on a passage, and what is known of its answer. Frozen values; offsets are characters of the passage as it was written.

    Example(id="q1", question="Where?", passage="In Rome.", document="d", answerable=True, texts=("Rome",), spans=(Span(3, 7),))

`passage[span.start:span.end]` is the answer's text, always. What a file says of an answer and what stands in the passage are kept
apart: `texts` are the answers as written, for scoring; `spans` are those of them that stand in the passage, for training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of a passage; never empty."""

    start: int
    end: int

    def of(self, passage: str) -> str:
        """The text."""
        return passage[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Example:
    """One question."""

    id: str
    """Unique in its file."""
    question: str
    passage: str
    document: str = ""
    """What held-out splits are made of: the article's title, or a digest of the passage where there is none."""
    answerable: bool | None = None
    """None: not said."""
    texts: tuple[str, ...] = ()
    """Accepted answers as written, one an annotator; empty where there is none."""
    spans: tuple[Span, ...] = ()
    """Where accepted answers stand in the passage."""
    plausible: tuple[Span, ...] = ()
    """Of an unanswerable question: what a careless reader would say."""
    pair_id: str | None = None
    """The question that this one was edited from or to."""
    written_id: str | None = None
    """The id in the file where it was not unique; predictions are looked up by it."""

    def with_id(self, unique: str) -> Example:
        """The same question under another id."""
        return replace(self, id=unique, written_id=self.written_id or self.id)


@dataclass
class Problems:
    """What was wrong in the input, counted by name, with the first places. Nothing is dropped without an entry here."""

    counts: Counter[str] = field(default_factory=Counter[str])
    places: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    MOST_PLACES = 3

    def add(self, name: str, place: str, count: int = 1) -> None:
        """Count a problem; `place` is `path:row` or a question's id."""
        self.counts[name] += count
        seen = self.places.setdefault(name, [])
        if len(seen) < self.MOST_PLACES:
            seen.append(place)

    def as_dict(self) -> dict[str, dict[str, object]]:
        """Name -> {"count", "first"}: for JSON."""
        return {name: {"count": count, "first": list(self.places[name])} for name, count in sorted(self.counts.items())}

    def lines(self) -> list[str]:
        """One line a problem, for people."""
        return [f"{count} x {name} (first: {', '.join(self.places[name])})" for name, count in self.counts.most_common()]


def of_documents(examples: Iterable[Example], documents: Iterable[str]) -> tuple[Example, ...]:
    """The examples of the named documents, in their order."""
    names = set(documents)
    return tuple(example for example in examples if example.document in names)
