"""The first pass over instruction data: what can be read, what is dropped and why, and the order in which rows are taken.

    surveys = survey({"a": path}, {"a": Alpaca()}, seed=0, on_rows=...)
    surveys["a"].ordinals       # usable rows, none twice, in the seeded hash order of their content

The order of a row depends on its content and the seed alone. So the first 1,000 rows are inside the first 4,000, whatever the order of
the file and whatever else is mixed in. Of equal rows the first stays: by data set in the order of names, then by place. Memory: about 40
bytes a row.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from campana.data.files import RawRow, Wanted, read_located_rows
from campana.data.format import DroppedRow, Format
from campana.data.packing import mix
from campana.records import Conversation


@dataclass
class Drops:
    """Rows left out, counted by reason, with the first of each as an example."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, dropped: DroppedRow, where: str, excerpt: str = "") -> None:
        """Count one row."""
        self.counts[dropped.reason] = self.counts.get(dropped.reason, 0) + 1
        if dropped.reason not in self.examples:
            self.examples[dropped.reason] = {"where": where, "detail": _writable(dropped.detail[:200]), "excerpt": _writable(excerpt[:200])}

    def as_dict(self) -> dict[str, Any]:
        """Reason -> count and example, the most frequent first."""
        order = sorted(self.counts, key=lambda reason: (-self.counts[reason], reason))
        return {reason: {"count": self.counts[reason], "example": self.examples[reason]} for reason in order}


def _writable(text: str) -> str:
    """The text, with what has no UTF-8 (half a surrogate pair, as JSON can hold) written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass
class Survey:
    """What the first pass found in one data set."""

    num_read: int
    ordinals: npt.NDArray[np.int64]
    """Usable rows by their place among all rows read, in hash order."""
    drops: Drops


def read_conversations(
    name: str, path: Path, row_format: Format, wanted: Wanted | None = None
) -> Iterator[tuple[int, str, RawRow, Conversation | DroppedRow]]:
    """(ordinal, place such as `alpaca:12`, raw row, conversation or why there is none) for every row, or every wanted one."""
    for ordinal, file, number, row in read_located_rows(path, wanted):
        where = f"{name}/{file}:{number}" if file else f"{name}:{number}"
        if isinstance(row, DroppedRow):
            yield ordinal, where, row, row
            continue
        try:
            found: Conversation | DroppedRow = row_format.read(row, where)
        except DroppedRow as dropped:
            found = dropped
        yield ordinal, where, row, found


@dataclass
class _Raw:
    """Rows of one data set before equal ones are found."""

    num_read: int = 0
    ordinals: array[int] = field(default_factory=lambda: array("q"))
    digests: bytearray = field(default_factory=bytearray)
    drops: Drops = field(default_factory=Drops)


def survey(paths: Mapping[str, Path], formats: Mapping[str, Format], seed: int, on_rows: Callable[[str, int], None]) -> dict[str, Survey]:
    """Read all data sets once. `on_rows(name, rows)` is told now and then how far it is."""
    names = sorted(paths)
    found = [_read(name, paths[name], formats[name], on_rows) for name in names]
    starts = np.cumsum([0, *(len(raw.ordinals) for raw in found)])
    digests = np.concatenate([np.frombuffer(bytes(raw.digests), np.uint64).reshape(-1, 2) for raw in found])
    first = _first_equal(digests)

    def where(row: int) -> str:
        number = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{names[number]}:row {found[number].ordinals[row - int(starts[number])] + 1}"

    surveys: dict[str, Survey] = {}
    for name, raw, start, end in zip(names, found, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        unique = first[start:end] == np.arange(start, end)
        for row in (np.flatnonzero(~unique) + start).tolist():
            raw.drops.add(DroppedRow("duplicate", f"equal to {where(int(first[row]))}"), where(row))
        order = np.argsort(_ranks(digests[start:end][unique], seed), kind="stable")
        surveys[name] = Survey(raw.num_read, np.frombuffer(raw.ordinals, np.int64)[unique][order], raw.drops)
    return surveys


def _read(name: str, path: Path, row_format: Format, on_rows: Callable[[str, int], None]) -> _Raw:
    raw = _Raw()
    for ordinal, where, row, found in read_conversations(name, path, row_format):
        raw.num_read += 1
        if raw.num_read % 10_000 == 0:
            on_rows(name, raw.num_read)
        try:
            if isinstance(found, DroppedRow):
                raise found
            raw.digests += digest(found)
        except DroppedRow as dropped:
            excerpt = "" if isinstance(row, DroppedRow) or dropped.reason in raw.drops.counts else json.dumps(row, default=str)
            raw.drops.add(dropped, where, excerpt)
            continue
        except UnicodeEncodeError as error:
            raw.drops.add(DroppedRow("not UTF-8", f"half a surrogate pair: {error.reason}"), where)
            continue
        raw.ordinals.append(ordinal)
    return raw


def digest(conversation: Conversation) -> bytes:
    """16 bytes that name a conversation's content: roles and texts, to the letter."""
    parts = [f"{message.role}:{len(message.content)}:{message.content}" for message in conversation.messages]
    return hashlib.blake2b("".join(parts).encode("utf-8"), digest_size=16).digest()


def _first_equal(digests: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """For each row, the first row of the same digest."""
    order = np.lexsort((np.arange(len(digests)), digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    begins = np.ones(len(digests), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(digests), np.int64)
    first[order] = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]] if len(digests) else order
    return first


def _ranks(digests: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """A number for each content, which the seed and the content alone decide."""
    start = mix(np.array([seed], np.int64).astype(np.uint64))
    return mix(mix(digests[:, 0] ^ start) + digests[:, 1])
