"""Prepared rows on disk: Arrow IPC files of tokens and masks, mapped into memory and read one row at a time.

    rows = PreparedRows.open(Path("train.arrow"))
    ids, supervised = rows.row(0)      # int32 [T], bool [T]

Schema campana.prepared/1, named in the file's metadata: `ids` list<int32>, `supervised` list<bool> of the same lengths,
`num_supervised` int32, `source` string (data set:line).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from campana.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "campana.prepared/1"


def arrow_schema(extra: Mapping[str, Any] | None = None) -> pa.Schema:
    """The columns of a prepared file, and `extra` ones."""
    import pyarrow as pa

    fields: dict[str, Any] = {
        "ids": pa.list_(pa.int32()),
        "supervised": pa.list_(pa.bool_()),
        "num_supervised": pa.int32(),
        "source": pa.string(),
        **(extra or {}),
    }
    return pa.schema(list(fields.items()), metadata={"schema": SCHEMA})


class RowWriter:
    """Writes rows batch by batch; the file is whole once the `with` block ends."""

    def __init__(self, path: Path, schema: pa.Schema | None = None) -> None:
        import pyarrow as pa

        self._schema = schema or arrow_schema()
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()
        self._file.close()

    def write(self, columns: Mapping[str, Any]) -> None:
        """Append rows given by column."""
        import pyarrow as pa

        self._writer.write_batch(pa.RecordBatch.from_pydict(dict(columns), schema=self._schema))

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append rows that Arrow holds already."""
        self._writer.write_batch(batch.select(self._schema.names).cast(self._schema))


class PreparedRows:
    """Rows of a prepared file. Make it with `open`."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = [batch for batch in batches if batch.num_rows]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self.lengths: npt.NDArray[np.int64] = self._joined([np.diff(_offsets(batch, "ids")) for batch in self._batches])
        """Tokens of each row."""
        self.num_supervised: npt.NDArray[np.int64] = self._joined([batch.column("num_supervised").to_numpy() for batch in self._batches])
        """Learned tokens of each row."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Map a file into memory. Raises DataError for a damaged file or another schema."""
        import pyarrow as pa

        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            metadata: Mapping[bytes, bytes] = reader.schema.metadata or {}
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"not a file of prepared rows: {error}", where=path.name, hint="campana verify finds damaged files") from error
        found = metadata.get(b"schema", b"").decode()
        if found != SCHEMA:
            raise DataError(
                f"rows of schema {found!r}, not {SCHEMA!r}", where=path.name, hint="was it written by another version of campana?"
            )
        return cls(batches)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """A row's tokens (int32 [T], a read-only view of the file) and whether each is learned (bool [T])."""
        batch, place = self._find(index)
        start, end = _offsets(batch, "ids")[place : place + 2]
        ids = batch.column("ids").values[start:end].to_numpy()
        start, end = _offsets(batch, "supervised")[place : place + 2]
        return ids, batch.column("supervised").values[start:end].to_numpy(zero_copy_only=False)

    def first_beyond(self, num_tokens: int) -> int | None:
        """The first row with a token that is none of a vocabulary of that size; None: there is none."""
        for start, batch in zip(self._starts, self._batches, strict=False):
            offsets = _offsets(batch, "ids")
            ids = batch.column("ids").values[offsets[0] : offsets[-1]].to_numpy()
            if ids.size and (ids.min() < 0 or ids.max() >= num_tokens):
                place = int(((ids < 0) | (ids >= num_tokens)).argmax()) + offsets[0]
                return int(start + np.searchsorted(offsets, place, side="right")) - 1
        return None

    def source(self, index: int) -> str:
        """Where a row came from."""
        batch, place = self._find(index)
        return batch.column("source")[place].as_py()

    def _find(self, index: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._batches[number], index - int(self._starts[number])

    @staticmethod
    def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def _offsets(batch: pa.RecordBatch, column: str) -> npt.NDArray[np.int32]:
    return batch.column(column).offsets.to_numpy()
