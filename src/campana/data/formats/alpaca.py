"""`alpaca`: one row, one instruction with an optional input, and its output; earlier rounds in `history`, a system turn in `system`.

    {"instruction": "Add.", "input": "2 and 3", "output": "5"}

Other names are options: GSM8K is `{kind: alpaca, instruction: question, output: answer}`; a path reaches inside: `instances.0.output`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from campana.data.format import DroppedRow, Format
from campana.data.turns import conversation, field, text_field
from campana.records import Conversation


class Alpaca(Format):
    """Instruction, input, output."""

    kind: Literal["alpaca"] = "alpaca"
    instruction: str = "instruction"
    """Field of the instruction."""
    input: str | None = "input"
    """Field of the input, set under the instruction after a line break; a row may lack it. None: there is none."""
    output: str = "output"
    """Field of the answer."""
    system: str | None = "system"
    """Field of the system turn; a row may lack it."""
    history: str | None = "history"
    """Field of earlier rounds, a list of [prompt, answer]; a row may lack it."""

    def read(self, row: Mapping[str, Any], source: str) -> Conversation:
        """System, history, then the instruction with its input, and the output. Raises DroppedRow."""
        turns: list[tuple[str, Any]] = []
        if self.system is not None:
            turns.append(("system", text_field(row, self.system, optional=True)))
        history = (field(row, self.history, optional=True) if self.history else None) or []
        if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
            raise DroppedRow("bad role order", "`history` must be a list of [prompt, answer]")
        for pair in history:
            turns += [("user", pair[0]), ("assistant", pair[1])]
        prompt = text_field(row, self.instruction)
        given = text_field(row, self.input, optional=True) if self.input else ""
        turns.append(("user", "\n".join(part for part in (prompt, given) if part.strip())))
        turns.append(("assistant", text_field(row, self.output)))
        return conversation(turns, source)
