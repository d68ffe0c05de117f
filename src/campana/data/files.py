"""Data files as streams of raw rows: JSONL, JSON arrays of any size, Parquet, text; one file, a folder or a glob; `hf:` data sets.

    for number, row in read_rows(Path("alpaca.jsonl")):
        ...  # row is a dict, or a DroppedRow that says why line `number` is none

What a file holds is told by its first bytes, not by its name. A damaged row is a value (`not UTF-8`, `not JSON`, `truncated JSON`,
`not an object`), never fatal; a file that cannot be read at all is a DataError. Memory is bounded by the longest row.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any, cast

from campana.data.format import DroppedRow
from campana.errors import DataError

RawRow = dict[str, Any] | DroppedRow
Wanted = Callable[[int], bool]
"""Says whether the row of that ordinal (0, 1, ... over all files, blank lines not counted) is wanted; others are passed over unparsed."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".txt", ".jsonl.gz", ".json.gz", ".txt.gz")
CHUNK = 1 << 20


def locate_data(text: str) -> Path:
    """The path that a study file's data entry means: a file, a folder, a glob, or `hf:org/name@revision[/folder]` in the local cache."""
    if text.startswith("hf:"):
        return _hugging_face(text)
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # Path's raises for a ~name of nobody
    data_files(path)
    return path


def data_files(path: Path) -> list[Path]:
    """The files that a path means, sorted by name. Raises DataError where there are none."""
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES) and not file.name.startswith(".")]
        hint = f"a data folder holds {', '.join(SUFFIXES[:5])} files"
    else:
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207  # Path.glob refuses absolute patterns
        found = [Path(name) for name in names if Path(name).is_file()]
        hint = "give a file, a folder, a glob or hf:org/name@revision; paths are relative to the study file"
    if not found:
        raise DataError("no data file here", where=str(path), hint=hint)
    return sorted(found)


def read_rows(path: Path, wanted: Wanted | None = None) -> Iterator[tuple[int, RawRow]]:
    """The rows of a file, or of all files of a folder or glob: (line number, row). See `read_file`."""
    for _, _, number, row in read_located_rows(path, wanted):
        yield number, row


def read_located_rows(path: Path, wanted: Wanted | None = None) -> Iterator[tuple[int, str, int, RawRow]]:
    """As `read_rows`, with the row's ordinal and its file's name below `path` ("" for a single file) before the number."""
    files = data_files(path)
    base = 0
    for file in files:
        name = "" if len(files) == 1 else file.relative_to(path).as_posix() if path.is_dir() else file.name
        count = 0
        for ordinal, number, row in read_file(file, _shifted(wanted, base)):
            count = ordinal + 1
            if row is not None:
                yield base + ordinal, name, number, row
        base += count


def _shifted(wanted: Wanted | None, base: int) -> Wanted:
    if wanted is None:
        return lambda _: True
    return lambda ordinal: wanted(base + ordinal)


def read_file(path: Path, wanted: Wanted) -> Iterator[tuple[int, int, RawRow | None]]:
    """One file's rows: (ordinal from 0, number from 1, row, or None where it is not wanted).

    The number is the line in JSONL and text, and the row's own place in JSON arrays and Parquet.
    """
    with path.open("rb") as raw:
        head = raw.read(4)
    if head == b"PAR1":
        return _parquet(path, wanted)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("a UTF-16 file", where=str(path), hint=f"iconv -f UTF-16 -t UTF-8 {path.name} > new.jsonl")
    zipped = head[:2] == b"\x1f\x8b"
    if path.name.removesuffix(".gz").endswith(".txt"):
        return _lines(path, zipped, wanted, _text_row)
    with _gzip_errors(path), _opened(path, zipped) as file:
        layout = _layout(file)
    if layout == "lines":
        return _lines(path, zipped, wanted, _json_row)
    return _values(path, zipped, wanted, array=layout == "array")


def _opened(path: Path, zipped: bool) -> IO[bytes]:
    file = cast("IO[bytes]", gzip.open(path, "rb")) if zipped else path.open("rb")  # noqa: SIM115  # the caller closes it
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    return file


@contextlib.contextmanager
def _gzip_errors(path: Path) -> Generator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"a damaged gzip file: {error}", where=str(path), hint="fetch it again") from error


def _layout(file: IO[bytes]) -> str:
    """`array`, `lines` (one object a line) or `values` (objects that span lines, one after the other)."""
    first = b""
    while not first.strip():
        first = file.readline(CHUNK)
        if not first:
            return "lines"
    first = first.strip()
    if first.startswith(b"["):
        return "array"
    if first == b"{":
        return "values"
    spans = first.startswith(b"{") and first.endswith((b",", b"[", b"{", b":"))
    return "values" if spans and not isinstance(_json_row(next(filter(bytes.strip, file), b"")), dict) else "lines"


def _lines(path: Path, zipped: bool, wanted: Wanted, parse: Callable[[bytes], RawRow]) -> Iterator[tuple[int, int, RawRow | None]]:
    ordinal = 0
    with _gzip_errors(path), _opened(path, zipped) as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            yield ordinal, number, parse(line) if wanted(ordinal) else None
            ordinal += 1


def _json_row(line: bytes) -> RawRow:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return DroppedRow("not UTF-8", str(error))
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        cut = not text.endswith("\n") and (error.pos >= len(text) or error.msg.startswith("Unterminated"))
        return DroppedRow("truncated JSON" if cut else "not JSON", f"{error.msg} at column {error.colno}: {text[:60]!r}")
    except (RecursionError, ValueError) as error:
        return DroppedRow("not JSON", str(error))
    return _object(value)


def _text_row(line: bytes) -> RawRow:
    try:
        return {"text": line.decode("utf-8").rstrip("\r\n")}
    except UnicodeDecodeError as error:
        return DroppedRow("not UTF-8", str(error))


def _object(value: Any) -> RawRow:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    return DroppedRow("not an object", f"{type(value).__name__}: {str(value)[:60]!r}")


_GAP = re.compile(r"[\s,]*")
_NEXT_OBJECT = re.compile(r"\}\s*,?\s*(?=\{)")


def _values(path: Path, zipped: bool, wanted: Wanted, *, array: bool) -> Iterator[tuple[int, int, RawRow | None]]:
    """Elements of a JSON array, or objects one after the other, through a window that holds one element and a chunk.

    Bytes that are not UTF-8 pass through as lone surrogates, so that they cost their own row only. After a broken element it goes on at
    the next `}, {`, which may lie inside that element: then its `]` is not the array's. An element that the file's end cuts off is one
    `truncated JSON` row.
    """
    decoder = json.JSONDecoder()
    with _gzip_errors(path), _opened(path, zipped) as file:
        window = _Window(file)
        if array:
            window.skip_to("[")
        ordinal, is_whole = 0, True
        while True:
            start = window.skip(_GAP)
            if start is None or (array and window.text.startswith("]", start)):
                if array and start is None:
                    yield ordinal, ordinal + 1, DroppedRow("truncated JSON", "the array has no end") if wanted(ordinal) else None
                elif array and start is not None:
                    window.position = start + 1
                    rest = window.skip(_GAP)
                    if rest is not None and is_whole:
                        raise DataError(
                            f"more text after the array that the file starts with: {window.text[rest : rest + 60]!r}",
                            where=str(path),
                            hint="a file is one JSON array, or one object a line",
                        )
                    following = None if rest is None else window.find(_NEXT_OBJECT, rest)
                    if following is not None:
                        window.position = following
                        continue
                return
            found = _element(window, decoder, start, ordinal + 1)
            if found is None:
                continue
            row, end = found
            is_whole = is_whole and not (isinstance(row, DroppedRow) and row.reason == "not JSON")
            yield ordinal, ordinal + 1, row if wanted(ordinal) else None
            ordinal += 1
            if end is None:
                return
            window.position = end


def _element(window: _Window, decoder: json.JSONDecoder, start: int, number: int) -> tuple[RawRow, int | None] | None:
    """The element at `start` and where it ends (None: at the end of the file); None after reading on, to try again."""
    try:
        value, end = decoder.raw_decode(window.text, start)
    except json.JSONDecodeError as error:
        near_end = len(window.text) - error.pos < 16 or error.msg.startswith("Unterminated")
        if near_end and window.grow():
            return None
        row = DroppedRow("truncated JSON" if near_end else "not JSON", f"{error.msg}: {window.text[start : start + 60]!r}")
        return row, window.find(_NEXT_OBJECT, max(start, error.pos - 1))
    except (RecursionError, ValueError) as error:
        return DroppedRow("not JSON", str(error)), window.find(_NEXT_OBJECT, start)
    if end == len(window.text) and window.grow():
        return None
    if not window.is_utf8(start, end):
        return DroppedRow("not UTF-8", f"in element {number}"), end
    return _object(value), end


class _Window:
    """Text of a file from `position` on, as far as it was needed."""

    def __init__(self, file: IO[bytes]) -> None:
        import codecs

        self.text = ""
        self.position = 0
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape").decode
        self._chunk = CHUNK

    def grow(self) -> bool:
        """Read on, twice as much as the last time while one element is not complete; False at the end of the file."""
        if self.position:
            self.text = self.text[self.position :]
            self.position = 0
            self._chunk = CHUNK
        data = self._file.read(self._chunk)
        self._chunk *= 2
        self.text += self._decode(data, not data)
        return bool(data)

    def skip(self, gap: re.Pattern[str]) -> int | None:
        """Move past a gap; the place of what follows, or None at the end of the file."""
        while True:
            match = gap.match(self.text, self.position)
            assert match is not None
            self.position = match.end()
            if self.position < len(self.text):
                if len(self.text) - self.position < 64:
                    self.grow()
                return self.position
            if not self.grow():
                return None

    def skip_to(self, mark: str) -> None:
        """Move past the first `mark`."""
        while (place := self.text.find(mark, self.position)) < 0 and self.grow():
            pass
        self.position = place + 1

    def find(self, pattern: re.Pattern[str], start: int) -> int | None:
        """Where the text after the next match begins, reading on as needed; None at the end of the file."""
        self.position = start
        while (match := pattern.search(self.text, self.position)) is None:
            self.position = max(self.position, len(self.text) - 64)
            if not self.grow():
                return None
        return match.end()

    def is_utf8(self, start: int, end: int) -> bool:
        piece = self.text[start:end]
        if piece.isascii():
            return True
        try:
            piece.encode("utf-8")
        except UnicodeEncodeError:
            return False
        return True


def _parquet(path: Path, wanted: Wanted) -> Iterator[tuple[int, int, RawRow | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"a damaged Parquet file: {error}", where=str(path), hint="fetch it again") from error
    ordinal = 0
    with file:
        for batch in file.iter_batches(batch_size=1024):
            chosen = [number for number in range(batch.num_rows) if wanted(ordinal + number)]
            rows = dict(zip(chosen, batch.take(pa.array(chosen, pa.int64())).to_pylist(), strict=True)) if chosen else {}
            for number in range(batch.num_rows):
                yield ordinal + number, ordinal + number + 1, rows.get(number)
            ordinal += batch.num_rows


def _hugging_face(text: str) -> Path:
    match = re.fullmatch(r"hf:([^/@\s]+/[^/@\s]+)@([0-9A-Za-z._-]+)(?:/(.+))?", text)
    if match is None:
        raise DataError(f"not a pinned data set: {text!r}", hint="write hf:org/name@revision, with a commit as the revision")
    name, revision, inside = match.groups()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise DataError(
            f"the data set {name} at {revision} is not in the local cache",
            where=text,
            hint=f"where the hub can be reached, type: hf download {name} --repo-type dataset --revision {revision}",
        ) from error
    path = folder / inside if inside else folder
    data_files(path)
    return path
