"""Which format a data file has, from the names in its first rows.

    detect_format(Path("gsm8k.jsonl"))   # Alpaca(instruction="question", input=None, output="answer")

The answer is a part like one that was written by hand, so it is shown in the plan and enters the key. What is not sure is an error
that lists the fields found.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from campana.data.files import read_rows
from campana.data.format import DroppedRow, Format
from campana.errors import DataError
from campana.parts import kind_of

NUM_ROWS = 50
PAIRS = (
    ("instruction", "output"),
    ("question", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("query", "response"),
    ("input", "output"),
)


def detect_format(path: Path) -> Format:
    """The format of the rows of a file, folder or glob. Raises DataError where none of ours fits."""
    rows = [row for _, row in islice(read_rows(path), NUM_ROWS) if not isinstance(row, DroppedRow)]
    if not rows:
        raise DataError(f"no readable row among the first {NUM_ROWS}", where=str(path), hint="rows are JSON objects, or Parquet")
    found = _candidates(rows[0])
    for part in found:
        if all(part == other for row in rows if (other := next(iter(_candidates(row)), None)) is not None):
            return part
    if found:
        raise DataError("rows of more than one format", where=str(path), hint="name one: data: {x: {path: ..., format: ...}}")
    fields = ", ".join(str(name) for name in rows[0])
    raise DataError(
        f"rows of no known format, with the fields {fields}",
        where=str(path),
        hint="name the fields, such as format: {kind: alpaca, instruction: question, input: null, output: answer}",
    )


def require_readable(path: Path, part: Format) -> None:
    """Raise DataError where none of the first rows can be used: another format, a field of another name, no rows at all."""
    first: DroppedRow | None = None
    fields = ""
    for number, row in islice(read_rows(path), NUM_ROWS):
        try:
            if isinstance(row, DroppedRow):
                raise row
            part.read(row, f"{path.name}:{number}")
        except DroppedRow as dropped:
            if first is None:
                first, fields = dropped, "" if isinstance(row, DroppedRow) else ", ".join(map(str, row))
        else:
            return
    if first is None:
        raise DataError("there are no rows", where=str(path), hint="rows are JSON objects, one a line or in an array, or Parquet")
    hint = f"the first row has the fields {fields}; `campana describe format` lists the formats and what they read" if fields else None
    raise DataError(
        f"none of the first {NUM_ROWS} rows can be read as {kind_of(type(part))}: {first}",
        where=str(path),
        hint=hint or "rows are JSON objects, one a line or in an array, or Parquet",
    )


def _candidates(row: Mapping[str, Any]) -> list[Format]:
    from campana.data.formats.alpaca import Alpaca
    from campana.data.formats.messages import Messages
    from campana.data.formats.sharegpt import ShareGPT
    from campana.data.formats.text import Text

    found: list[Format] = []
    for name in ("messages", "conversations", "conversation"):
        turns = row.get(name)
        first = turns[0] if isinstance(turns, list) and turns else None
        if not isinstance(first, Mapping):
            continue
        if "role" in first and "content" in first:
            found.append(Messages(messages=name))
        elif "from" in first and "value" in first:
            found.append(ShareGPT(conversations=name))
    for prompt, answer in PAIRS:
        if isinstance(row.get(prompt), str) and answer in row and not found:
            has_input = prompt == "instruction" and "input" in row
            found.append(Alpaca(instruction=prompt, input="input" if has_input else None, output=answer))
    if not found and isinstance(row.get("text"), str):
        found.append(Text())
    return found
