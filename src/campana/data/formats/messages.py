"""`messages`: OpenAI's form, a list of {role, content}.

    {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}

Content may be a string or a list of text parts. Tool calls and images are refused (`unknown role`, `not text`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from campana.data.format import DroppedRow, Format
from campana.data.turns import conversation, field
from campana.records import Conversation


class Messages(Format):
    """A list of role and content."""

    kind: Literal["messages"] = "messages"
    messages: str = "messages"
    """Field of the list."""

    def read(self, row: Mapping[str, Any], source: str) -> Conversation:
        """The list as it is. Raises DroppedRow."""
        turns = field(row, self.messages)
        if not isinstance(turns, list):
            raise DroppedRow("no turns", f"{self.messages!r} holds {type(turns).__name__}, not a list")
        return conversation([_turn(turn) for turn in turns], source)


def _turn(turn: Any) -> tuple[str, Any]:
    if not isinstance(turn, Mapping) or "role" not in turn:
        raise DroppedRow("no turns", "a turn without a role")
    if turn.get("tool_calls"):
        raise DroppedRow("unknown role", "a tool call")
    content = turn.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
            raise DroppedRow("not text", "a content part that is not text")
        content = "".join(part["text"] for part in content)
    return str(turn["role"]), content
