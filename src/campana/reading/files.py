"""Files of questions: SQuAD JSON (1.1, 2.0, CMRC), and one question a row as JSONL, JSON array or Parquet.

    problems = Problems()
    for example in read_examples(Path("dev-v2.0.json"), problems):
        ...
    print(problems.lines())

A row is `{"question", "context" or "passage", "answers", ...}`; `answers` in any of the forms in use (see `rows`). What is wrong is
mended where the meaning is sure, kept where it is not, and counted in `problems` either way. A file cut off is read up to its last
complete question. A file that holds no question at all is a DataError. Memory: the longest row; a SQuAD file is one row.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from campana.data.files import data_files, read_file, read_rows
from campana.data.format import DroppedRow
from campana.errors import DataError
from campana.reading.examples import Example, Problems
from campana.reading.rows import examples_of
from campana.reading.salvage import salvage

_HINT = 'SQuAD JSON, or rows like {"id": "1", "question": "...", "context": "...", "answers": [{"text": "...", "answer_start": 0}]}'


def read_examples(path: Path, problems: Problems) -> Iterator[Example]:
    """The questions of a file, a folder or a glob, in order; ids are made unique (`x`, `x#2`), and that is counted."""
    seen: dict[str, int] = {}
    for example in _unchecked(path, problems):
        count = seen[example.id] = seen.get(example.id, 0) + 1
        if count == 1:
            yield example
            continue
        problems.add("duplicate id", example.id)
        unique = f"{example.id}#{count}"
        while unique in seen:
            count += 1
            unique = f"{example.id}#{count}"
        seen[unique] = 1
        yield example.with_id(unique)


def load_examples(path: Path, problems: Problems | None = None) -> tuple[Example, ...]:
    """All questions of a file. Raises DataError where there is none."""
    problems = Problems() if problems is None else problems
    examples = tuple(read_examples(path, problems))
    if not examples:
        raise no_question(path, problems)
    return examples


def no_question(path: Path, problems: Problems) -> DataError:
    """The error for a file in which no question was found: what its rows are instead, and what they should be."""
    told = "; ".join(problems.lines())
    first = next((row for _, row in read_rows(path) if not isinstance(row, DroppedRow)), None)
    if first is not None:
        told += f"; the fields of its first row: {', '.join(list(first)[:12]) or 'none'}"
    hint = _HINT
    if problems.counts["not UTF-8"]:
        hint = f"texts are UTF-8; for a Chinese one type: iconv -f GB18030 -t UTF-8 {path.name} > new{path.suffix}"
    return DataError("no question in this file" + (f": {told}" if told else ""), where=str(path), hint=hint)


def _unchecked(path: Path, problems: Problems) -> Iterator[Example]:
    for file in data_files(path):
        for _, number, row in read_file(file, lambda _: True):
            place = f"{file.name}:{number}"
            if isinstance(row, DroppedRow):
                yield from _rescued(file, row, number, problems)
            elif row is not None:
                yield from examples_of(row, place, problems)


def _rescued(file: Path, dropped: DroppedRow, number: int, problems: Problems) -> Iterator[Example]:
    """What a broken row still holds: only a file that is one SQuAD document has parts worth saving."""
    place = f"{file.name}:{number}"
    problems.add(dropped.reason, place)
    if number != 1 or dropped.reason not in ("truncated JSON", "not JSON"):
        return
    document = salvage(_text(file), ("data", "paragraphs", "qas"))
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        yield from examples_of(document, place, problems)


def _text(file: Path) -> str:
    raw = file.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    return raw.decode("utf-8-sig", errors="replace")


def read_predictions(path: Path) -> dict[str, str]:
    """Answers by question id: the official form `{"id": "text"}`, or the lines that `campana read answer` writes ("" : no answer)."""
    text = path.read_text(encoding="utf-8")
    try:
        whole: Any = json.loads(text)
    except json.JSONDecodeError:
        whole = None
    if isinstance(whole, dict) and "schema" not in whole and all(isinstance(value, str) for value in whole.values()):
        return dict(whole)  # pyright: ignore[reportUnknownVariableType]  # JSON, checked above
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
            found[str(row["id"])] = row["answer"] or ""
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"not predictions: {error!r}",
                where=f"{path.name}:{number}",
                hint='write {"question id": "answer", ...} with "" for no answer, or lines of `campana read answer`',
            ) from error
    return found


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write questions one a line, in the form that `read_examples` reads back to equal values; returns how many.

    Of several places of one text the first is written: files of studies, which keys are made of, were written so.
    """
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            row: dict[str, Any] = {"id": example.id, "title": example.document, "question": example.question, "context": example.passage}
            if example.answerable is not None:
                starts = {span.of(example.passage): span.start for span in reversed(example.spans)}
                row["is_impossible"] = not example.answerable
                row["answers"] = [{"text": text, "answer_start": _start(text, starts)} for text in example.texts]
                row["plausible_answers"] = [{"text": s.of(example.passage), "answer_start": s.start} for s in example.plausible]
            if example.pair_id is not None:
                row["pair_id"] = example.pair_id
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _start(text: str, starts: Mapping[str, int]) -> int | None:
    """Where an answer begins, white space before it included: spans have none."""
    start = starts.get(text.strip())
    return None if start is None else start - (len(text) - len(text.lstrip()))
