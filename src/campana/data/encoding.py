"""The second pass: chosen rows become tokens in a spool file, whole turns at most `max_length` long, and are proved right on the way.

    usable = Encoder(template, 1024).encode("a", path, Alpaca(), ordinals, survey, spool, progress)   # bool, one a chosen row

A row over the length loses its last turns whole: what stays is the encoding of the shorter conversation, to the token. A row of which no
answer stays is dropped as `too long`, never learned with its answer cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from campana.data.format import DroppedRow, Format
from campana.data.languages import Scripts
from campana.data.prepared import RowWriter, arrow_schema
from campana.data.survey import Survey, read_conversations
from campana.data.templates import ChatTemplate, Encoded
from campana.errors import DataError
from campana.records import Conversation, Message

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 512
TOO_LONG = "too long"
"""Why a row was dropped that `max_length` cuts before its first answer ends."""
PROVED_FIRST = 256
PROVED_EVERY = 100


class Progress(Protocol):
    """Told how far it is."""

    def __call__(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        """`done` of `total`, in `unit`s, and further figures by name."""
        ...


class Spool:
    """Encoded rows on disk until it is known which of them are used. One read or write batch in memory at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        """Where each row asked for stands in the hash order."""

    def writer(self) -> RowWriter:
        """Open it to be written once, with `number`: the row's index among those asked for."""
        import pyarrow as pa

        return RowWriter(self.path, arrow_schema({"number": pa.int64()}))

    def batches(self) -> Iterator[tuple[npt.NDArray[np.int64], pa.RecordBatch]]:
        """Rows with their places in the hash order."""
        import pyarrow as pa

        with pa.OSFile(str(self.path)) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                yield self.places[batch.column("number").to_numpy()], batch.drop_columns(["number"])


@dataclass(frozen=True)
class DataFiles:
    """A data set: its name in the study's inputs, where it lies, how its rows read."""

    name: str
    path: Path
    format: Format


class Encoder:
    """Encodes conversations with one template, counting and proving as it goes."""

    def __init__(self, template: ChatTemplate, max_length: int) -> None:
        self._template = template
        self._max_length = max_length
        self.shortened: dict[str, int] = {}
        """Rows that lost their last turns, by data set."""
        self.languages: dict[str, Scripts] = {}
        """What the encoded texts are written in, by data set."""
        self._num_rows = 0
        self._num_prompts = 0

    def encode(
        self, data: DataFiles, ordinals: npt.NDArray[np.int64], found: Survey, spool: Spool, progress: Progress
    ) -> npt.NDArray[np.bool_]:
        """Encode the rows of those ordinals into the spool; says of each whether it can be used. Dropped ones are counted in `found`."""
        number_of = np.full(found.num_read, -1, np.int64)
        number_of[ordinals] = np.arange(len(ordinals))
        wanted = (number_of >= 0).tobytes()
        usable = np.zeros(len(ordinals), np.bool_)
        scripts = self.languages.setdefault(data.name, Scripts())
        done = 0
        with spool.writer() as writer:
            for rows in _batched(read_conversations(data.name, data.path, data.format, lambda ordinal: wanted[ordinal] == 1)):
                columns: dict[str, list[Any]] = {"ids": [], "supervised": [], "num_supervised": [], "source": [], "number": []}
                encoded = self._template.encode_many([conversation.messages for _, conversation in rows])
                for (ordinal, conversation), row in zip(rows, encoded, strict=True):
                    try:
                        messages, fitted = self._fit(data.name, conversation, row)
                    except DroppedRow as dropped:
                        found.drops.add(dropped, conversation.source, conversation.messages[-1].content)
                        continue
                    self._prove(messages, fitted, conversation.source)
                    scripts.add(conversation)
                    number = int(number_of[ordinal])
                    usable[number] = True
                    values = (fitted.ids, fitted.supervised, sum(fitted.supervised), conversation.source, number)
                    for column, value in zip(columns.values(), values, strict=True):
                        column.append(value)
                writer.write(columns)
                done += len(rows)
                progress(done, len(ordinals), "rows tokenised", data=data.name)
        return usable

    def proofs(self) -> dict[str, Any]:
        """What was proved: each of these would have stopped the run."""
        return {
            "prompts_equal_generation": self._num_prompts,
            "rows_with_supervised_tokens": self._num_rows,
            "answers_end_with_a_stop_token": self._num_rows,
            "end_token_is_pad_token": self._template.end_is_pad,
        }

    def _fit(self, name: str, conversation: Conversation, row: Encoded | DroppedRow) -> tuple[tuple[Message, ...], Encoded]:
        """The messages that stay, and their encoding."""
        messages = conversation.messages
        if isinstance(row, DroppedRow):
            raise row
        if len(row.ids) <= self._max_length:
            return messages, row
        ends = [index + 1 for index, message in enumerate(messages) if message.role == "assistant"]
        for end in reversed(ends[:-1]):
            shorter = self._template.encode(messages[:end])
            if len(shorter.ids) <= self._max_length:
                self.shortened[name] = self.shortened.get(name, 0) + 1
                return messages[:end], shorter
        raise DroppedRow(TOO_LONG, f"{len(row.ids):,} tokens, and no answer ends within {self._max_length:,}")

    def _prove(self, messages: tuple[Message, ...], row: Encoded, where: str) -> None:
        if not any(row.supervised):
            raise DataError("a row without a token to learn", where=where, hint="this is a fault of campana or of the template")
        for start, end in row.turns:
            if row.ids[end - 1] not in self._template.stop_ids or not all(row.supervised[max(start, 1) : end]):
                raise DataError(
                    "an answer that is not learned as a whole, its stop token included", where=where, hint="use another template"
                )
        if self._num_rows < PROVED_FIRST or self._num_rows % PROVED_EVERY == 0:
            self._prove_prompts(messages, row, where)
        self._num_rows += 1

    def _prove_prompts(self, messages: tuple[Message, ...], row: Encoded, where: str) -> None:
        answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
        for index, (start, _) in zip(answers if self._template.every_turn else answers[-1:], row.turns, strict=True):
            if row.ids[:start] != self._template.prompt(messages[:index]):
                raise DataError(
                    "the prompt tokens in training are not those in generation",
                    where=where,
                    hint="the chat template changes with what follows; name another: chatml, alpaca, belle or plain",
                )
            self._num_prompts += 1


def _batched(rows: Iterator[tuple[int, str, Any, Conversation | DroppedRow]]) -> Iterator[list[tuple[int, Conversation]]]:
    batch: list[tuple[int, Conversation]] = []
    for ordinal, _, _, found in rows:
        assert isinstance(found, Conversation), "the first pass read this row"
        batch.append((ordinal, found))
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
