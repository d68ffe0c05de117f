"""`sharegpt`: a list of turns, each with its speaker and its text; or a list of rounds, each with both speakers' texts.

    {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}], "system": "Be brief."}

MOSS holds rounds: `{kind: sharegpt, conversations: turns, round: [Human, MOSS], marks: ["<|Human|>:", "<eoh>", "<|MOSS|>:", "<eom>"]}`.
Tool calls and observations are refused (`unknown role`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from campana.data.format import DroppedRow, Format
from campana.data.turns import conversation, field, text_field
from campana.records import Conversation


class ShareGPT(Format):
    """Turns of `from` and `value`, or rounds of two fields."""

    kind: Literal["sharegpt"] = "sharegpt"
    conversations: str = "conversations"
    """Field of the list."""
    role: str = "from"
    """Field of a turn's speaker: human or user, gpt or assistant, system."""
    content: str = "value"
    """Field of a turn's text."""
    system: str | None = "system"
    """Field of the row's system turn; a row may lack it."""
    round: tuple[str, str] | None = None
    """Where an entry of the list holds a whole round: the fields of the person's and of the assistant's text."""
    marks: tuple[str, ...] = ()
    """Texts taken off the two ends of every turn, with the space around them."""

    def read(self, row: Mapping[str, Any], source: str) -> Conversation:
        """The list's turns, after the row's own system turn. Raises DroppedRow."""
        entries = field(row, self.conversations)
        if not isinstance(entries, list):
            raise DroppedRow("no turns", f"{self.conversations!r} holds {type(entries).__name__}, not a list")
        turns: list[tuple[str, Any]] = []
        if self.system is not None:
            turns.append(("system", text_field(row, self.system, optional=True)))
        for entry in entries:
            if not isinstance(entry, Mapping):
                raise DroppedRow("no turns", "an entry that is not an object")
            turns += self._turns(entry)
        return conversation(turns, source)

    def _turns(self, entry: Mapping[str, Any]) -> list[tuple[str, Any]]:
        if self.round is not None:
            person, assistant = self.round
            return [("user", self._clean(field(entry, person))), ("assistant", self._clean(field(entry, assistant)))]
        return [(str(field(entry, self.role)), self._clean(field(entry, self.content)))]

    def _clean(self, text: Any) -> Any:
        if not self.marks or not isinstance(text, str):
            return text
        before = None
        while before != text:
            before = text = text.strip()
            for mark in self.marks:
                text = text.removeprefix(mark).removesuffix(mark)
        return text
