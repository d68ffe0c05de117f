"""Answered turns, as the journal keeps them, and what is left to ask.

It owns the order of asking: all items' first turns, then the second turns of those that have one, each after the answer to the last.
Every turn is journalled as it ends, so a run that is killed asks nothing twice.

Groups. An engine whose answers depend on their batch (`Engine.group_size`) always answers the same requests together: the items are cut
into groups in the order of the suite, a group of which anything is missing is asked in full again, and only what was missing is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from campana.records import Answer, Item, Row


@dataclass(frozen=True, slots=True)
class TurnRecord(Row):
    """One answered turn."""

    SCHEMA: ClassVar[str] = "campana.turn/1"

    item_id: str
    turn: int
    """0 for the answer to the first user turn."""
    text: str
    finish: Literal["stop", "length"]
    num_prompt_tokens: int
    num_completion_tokens: int
    """Tokens that the model made, its end token included."""
    num_shared_tokens: int = 0
    """Of the prompt's, those that were read for another turn that was answered with this one."""

    def as_row(self) -> dict[str, Any]:
        """The journal's form."""
        return {"schema": self.SCHEMA, **asdict(self)}


Records = dict[tuple[str, int], TurnRecord]
"""Item id and turn -> what was answered."""


def read_records(rows: Sequence[Mapping[str, Any]]) -> Records:
    """The turns of a journal; of a turn that is there twice, the first."""
    records: Records = {}
    for row in rows:
        record = TurnRecord.from_json(row)
        records.setdefault((record.item_id, record.turn), record)
    return records


def num_turns(item: Item) -> int:
    """How many answers an item wants."""
    return sum(message["role"] == "user" for message in item.messages)


def messages_until(item: Item, turn: int, records: Records) -> list[dict[str, str]]:
    """The conversation up to a user turn, with the answers to those before it."""
    messages: list[dict[str, str]] = []
    num_users = 0
    for message in item.messages:
        if message["role"] == "user":
            if num_users > 0:
                messages.append({"role": "assistant", "content": records[(item.id, num_users - 1)].text})
            num_users += 1
        messages.append(message)
        if num_users > turn:
            break
    return messages


def open_groups(items: Sequence[Item], turn: int, records: Records, group_size: int | None) -> Iterator[list[Item]]:
    """What is asked together for a turn: what is missing; with a group size, whole groups of which anything is missing."""
    asked = [item for item in items if num_turns(item) > turn]
    size = group_size or max(1, len(asked))
    for start in range(0, len(asked), size):
        group = asked[start : start + size]
        missing = [item for item in group if (item.id, turn) not in records]
        if missing:
            yield missing if group_size is None else group


def answer_of(item: Item, records: Records) -> Answer:
    """An item's answer, from all its turns."""
    turns = [records[(item.id, turn)] for turn in range(num_turns(item))]
    return Answer(
        item_id=item.id,
        turns=tuple(turn.text for turn in turns),
        finish="length" if any(turn.finish == "length" for turn in turns) else "stop",
        num_prompt_tokens=sum(turn.num_prompt_tokens for turn in turns),
        num_completion_tokens=sum(turn.num_completion_tokens for turn in turns),
    )
