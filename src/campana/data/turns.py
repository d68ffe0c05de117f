"""What every format ends with: checked turns that make a conversation, and field paths into raw rows.

    conversation([("user", "2+2?"), ("assistant", "4")], source="alpaca:1")

Refuses, each with a reason that is counted: empty prompts, empty answers, roles out of order, unknown roles, what is not text.
Texts are kept to the letter: nothing is stripped or rewritten, and nothing in a row is ever evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from campana.data.format import DroppedRow
from campana.records import Conversation, Message, Speaker

ROLES: dict[str, Speaker] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""What the usual data sets call the three speakers."""


def conversation(turns: Iterable[tuple[str, Any]], source: str) -> Conversation:
    """A checked conversation from (role, text) pairs: system?, then user and assistant in turn, ending with the assistant.

    Raises DroppedRow: `no turns`, `unknown role`, `not text`, `bad role order`, `empty prompt`, `empty answer`.
    """
    messages: list[Message] = []
    for role, content in turns:
        speaker = ROLES.get(role)
        if speaker is None:
            raise DroppedRow("unknown role", repr(role))
        if not isinstance(content, str):
            raise DroppedRow("not text", f"the {role} turn holds {type(content).__name__}")
        if speaker == "system" and not messages and not content.strip():
            continue
        messages.append(Message(speaker, content))
    if not messages:
        raise DroppedRow("no turns")
    _check_order(messages)
    for message in messages:
        if not message.content.strip():
            raise DroppedRow("empty answer" if message.role == "assistant" else "empty prompt")
    return Conversation(tuple(messages), source)


def _check_order(messages: Sequence[Message]) -> None:
    start = 1 if messages[0].role == "system" else 0
    people = messages[start::2]
    answers = messages[start + 1 :: 2]
    if not people or len(people) != len(answers) or any(m.role != "user" for m in people) or any(m.role != "assistant" for m in answers):
        roles = [message.role for message in messages]
        raise DroppedRow("bad role order", " ".join(roles[:12]) + (" ..." if len(roles) > 12 else ""))


def field(row: Mapping[str, Any], path: str, *, optional: bool = False) -> Any:
    """The value at a path such as `output` or `instances.0.output`; the whole path is tried as one name first.

    Raises DroppedRow `missing field` where there is none, or gives None if `optional`.
    """
    if path in row:
        return row[path]
    value: Any = row
    for step in path.split("."):
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif optional:
            return None
        else:
            raise DroppedRow("missing field", f"no {path!r} among {', '.join(map(str, list(row)[:12]))}")
    return value


def text_field(row: Mapping[str, Any], path: str, *, optional: bool = False) -> str:
    """The text at a path; null is empty, and so is an optional one that is missing. Raises DroppedRow `missing field`, `not text`."""
    value = field(row, path, optional=optional)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DroppedRow("not text", f"{path!r} holds {type(value).__name__}")
    return value
