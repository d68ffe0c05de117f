"""The rows that cross stages: messages, conversations, items, answers, scores. Plain frozen values with a JSON form.

Each row that is stored names its schema (`"schema": "campana.answer/1"`), and a reader of another schema fails by name.
What is missing is None with a reason beside it, never 0 or NaN.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from campana.errors import DataError

R = TypeVar("R", bound="Row")
Speaker = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Speaker
    content: str

    def as_dict(self) -> dict[str, str]:
        """The OpenAI form, which chat templates take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Conversation:
    """A training row: an optional system turn, then user and assistant in turn, ending with the assistant."""

    messages: tuple[Message, ...]
    source: str = ""
    """Where it came from: `path:line`."""


class Row:
    """A stored row: a dataclass with a schema name and a JSON form."""

    SCHEMA: ClassVar[str]

    def to_json(self) -> str:
        """One line of JSON, schema first."""
        return json.dumps({"schema": self.SCHEMA, **asdict(self)}, ensure_ascii=False)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The row a JSON object holds. A wrong schema is an error."""
        fields = dict(row)
        found = fields.pop("schema", None)
        if found != cls.SCHEMA:
            raise DataError(f"a row of schema {found!r}, not {cls.SCHEMA!r}", hint="was it written by another version of campana?")
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Item(Row):
    """One question of a suite. Several user turns are asked one after the other, each after the answer to the last."""

    SCHEMA: ClassVar[str] = "campana.item/1"

    id: str
    category: str
    messages: tuple[dict[str, str], ...]
    """System and user turns only, in OpenAI form."""
    language: str = "en"
    reference: str | None = None
    """The gold answer (to the last turn), or None."""
    checks: tuple[dict[str, Any], ...] = ()
    """Checks as written, `{"kind": "number", "value": 42}`; empty: what the suite's category or the study says."""


@dataclass(frozen=True, slots=True)
class Answer(Row):
    """One model's answer to one item."""

    SCHEMA: ClassVar[str] = "campana.answer/1"

    item_id: str
    turns: tuple[str, ...]
    """One text a user turn."""
    finish: Literal["stop", "length"]
    """`length`: the answer was cut at the most tokens allowed."""
    num_prompt_tokens: int
    num_completion_tokens: int


@dataclass(frozen=True, slots=True)
class Score(Row):
    """What an answer is worth, 0..1, or why it could not be scored."""

    SCHEMA: ClassVar[str] = "campana.score/1"

    item_id: str
    category: str
    value: float | None
    reason: str
    """Why this value; where `value` is None, why the answer is unscored."""
    parts: tuple[dict[str, Any], ...] = ()
    """Each check's own outcome: {"check": kind, "value": 0..1 or None, "reason": text}."""


def write_jsonl(path: Path, rows: Iterable[Row]) -> int:
    """Write rows one a line; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(row.to_json() + "\n")
            count += 1
    return count


def read_jsonl(path: Path, row_type: type[R]) -> Iterator[R]:
    """The rows of a file written by `write_jsonl`. A damaged line is an error that names it."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield row_type.from_json(json.loads(line))
            except (ValueError, TypeError) as error:
                raise DataError(f"not a {row_type.SCHEMA} row: {error}", where=f"{path.name}:{number}") from error
