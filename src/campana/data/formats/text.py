"""`text`: a row of plain text. With marks it is a transcript of turns; without, one text that is learned from end to end.

    {"text": "### Human: 2+2?### Assistant: 4"}     {kind: text, user_mark: "### Human:", assistant_mark: "### Assistant:"}

A text file (.txt) is read one row a line. A text without marks has no prompt: use a template without roles for it (`plain`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from campana.data.format import DroppedRow, Format
from campana.data.turns import conversation, text_field
from campana.records import Conversation, Message


class Text(Format):
    """Plain text."""

    kind: Literal["text"] = "text"
    text: str = "text"
    """Field of the text."""
    user_mark: str | None = None
    """What stands before every turn of the person; None with `assistant_mark` None: no turns."""
    assistant_mark: str | None = None
    """What stands before every turn of the assistant."""

    @model_validator(mode="after")
    def _both_marks_or_none(self) -> Self:
        if (self.user_mark is None) != (self.assistant_mark is None) or self.user_mark == "" or self.assistant_mark == "":
            raise ValueError("give both user_mark and assistant_mark, or neither")
        return self

    def read(self, row: Mapping[str, Any], source: str) -> Conversation:
        """One learned text, or the turns of a transcript. Raises DroppedRow."""
        text = text_field(row, self.text)
        if self.user_mark is None or self.assistant_mark is None:
            if not text.strip():
                raise DroppedRow("empty answer")
            return Conversation((Message("assistant", text),), source)
        pieces = re.split(f"({re.escape(self.user_mark)}|{re.escape(self.assistant_mark)})", text)
        turns = [("system", pieces[0].strip())]
        for mark, said in zip(pieces[1::2], pieces[2::2], strict=True):
            turns.append(("user" if mark == self.user_mark else "assistant", said.strip()))
        return conversation(turns, source)
