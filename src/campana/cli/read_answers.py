"""`campana read answer`: one question, or a file of them as a stream; a batch that was stopped goes on where it was.

Answers go to OUT.part, a line each, in the order of the questions; OUT.part.json says of which questions, reader and options they are.
At the end OUT.part is renamed to OUT: a file called OUT is whole. The same command after a kill cuts off what follows the last whole
line, passes over the questions that have an answer, and reads the rest.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from campana.cli.counted import counted
from campana.cli.reading import choice, say, text_of
from campana.data.files import data_files
from campana.errors import DataError, UserError
from campana.models.cache import sha256_of
from campana.models.load import Precision
from campana.reading.examples import Example, Problems
from campana.reading.files import no_question, read_examples
from campana.reading.reader import write_json

if TYPE_CHECKING:
    from campana.reading.answer import ReaderAnswer
    from campana.reading.reader import Reader

SCHEMA = "campana.reading.job/1"


def answer(
    model: Path,
    file: Path | None,
    question: str | None,
    passage: str | None,
    threshold: float | None,
    nbest: int,
    output: Path | None,
    precision: str,
) -> None:
    """`campana read answer`."""
    if (file is None) == (question is None) or (question is None) != (passage is None):
        raise UserError("give either FILE, or --question and --passage", hint='campana read answer -m DIR -q "Where?" -p "In Rome."')
    from campana.reading.reader import Reader

    chosen: Precision = choice(precision, Precision, "precision")
    if file is None:
        asked = [Example(id="1", question=text_of(question or ""), passage=text_of(passage or ""))]
        for item in Reader.load(model, chosen).answer(asked, threshold=threshold, num_candidates=nbest):
            _write(item, output)
        return
    job = {"threshold": threshold, "nbest": nbest, "precision": precision}
    problems = Problems()
    reader = Reader.load(model, chosen)
    if output is None:
        count = 0
        answers = reader.answer(read_examples(file, problems), threshold=threshold, num_candidates=nbest)
        for count, item in enumerate(counted(answers, "answered"), 1):  # noqa: B007  # their number, afterwards
            sys.stdout.write(item.to_json() + "\n")
    else:
        files = data_files(file)
        job |= {"schema": SCHEMA, "questions": [sha256_of(path) for path in files], "reader": sha256_of(model)}
        count = _batch(reader, read_examples(file, problems), job, output)
    for line in problems.lines():
        say(line)
    if not count:
        raise no_question(file, problems)


def _write(item: ReaderAnswer, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(item.to_json() + "\n")
    else:
        output.write_text(item.to_json() + "\n", encoding="utf-8")


def _batch(reader: Reader, asked: Iterable[Example], job: dict[str, Any], output: Path) -> int:
    """Answer all into a file, or what is missing of it; how many are answered in the end."""
    part, note = output.with_name(output.name + ".part"), output.with_name(output.name + ".part.json")
    # Unbuffered: a kill costs at most the group of questions in hand.
    with part.open("ab", buffering=0) as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _taken(output) from error
        if not part.exists() or not os.path.samestat(os.fstat(lines.fileno()), part.stat()):  # the other run has just ended
            raise _taken(output)
        done = _whole_lines(part, lines)
        if done:
            _require_same(part, note, job)
            say(f"{done} questions are answered already; going on")
        else:
            write_json(note, job)
        count = done
        answers = reader.answer(islice(asked, done, None), threshold=job["threshold"], num_candidates=job["nbest"])
        for count, item in enumerate(counted(answers, "answered", done), done + 1):  # noqa: B007  # their number, afterwards
            lines.write(item.to_json().encode("utf-8") + b"\n")
        if count:
            part.replace(output)
        else:
            part.unlink()
        note.unlink()
    return count


def _taken(output: Path) -> DataError:
    return DataError("another run is writing this file", where=str(output), hint="wait for it, or give another --output")


def _whole_lines(part: Path, lines: IO[bytes]) -> int:
    """How many an earlier run left; what follows the last one is cut off."""
    count = end = 0
    with part.open("rb") as earlier:
        for line in earlier:
            if line.endswith(b"\n"):
                count, end = count + 1, end + len(line)
    lines.truncate(end)
    return count


def _require_same(part: Path, note: Path, job: dict[str, Any]) -> None:
    """DataError where the earlier run was of other questions, another reader or other options."""
    before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    if other := [name for name in job if before.get(name) != job[name]]:
        raise DataError(
            f"an unfinished run with other {' and '.join(other)} is here: its answers do not go with these",
            where=str(part),
            hint=f"give another --output, or delete it: rm {part} {note}",
        )
