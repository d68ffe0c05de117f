"""The journal keeps whole rows through a kill at any byte."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.errors import StoreError
from campana.journal import Journal

ROWS = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.none(), max_size=3), max_size=6)


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, data=st.data())
def test_a_kill_at_any_byte_loses_at_most_the_row_being_written(rows: list[dict[str, object]], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        with Journal(path) as journal:
            for row in rows:
                journal.append(row)
        written = path.read_bytes() if rows else b""
        cut = data.draw(st.integers(0, len(written)))
        path.write_bytes(written[:cut])
        whole = written[:cut].count(b"\n")

        with Journal(path) as journal:
            assert journal.rows() == rows[:whole]
            journal.append({"next": 1})
            assert journal.rows() == [*rows[:whole], {"next": 1}]
            assert journal.num_damaged == 0


def test_a_damaged_line_is_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"a": 1}\n\x00\x00\x00\n{"b": \n[1]\n{"c": 3}\n{"torn')
    journal = Journal(path)
    assert journal.rows() == [{"a": 1}, {"c": 3}]
    assert journal.num_damaged == 4


def test_rows_of_a_journal_that_was_never_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "journal.jsonl")
    assert journal.rows() == []
    assert not (tmp_path / "new").exists()


def test_every_row_is_on_the_disk_before_append_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl", sync_every=100)
    journal.append({"text": "你好\nline"})
    assert json.loads(journal.path.read_text().splitlines()[0]) == {"text": "你好\nline"}
    assert "你好" in journal.path.read_text()
    journal.close()


def test_a_lone_surrogate_survives(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append({"text": "\ud83d"})
        assert journal.rows() == [{"text": "\ud83d"}]


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal, pytest.raises(ValueError, match="not JSON compliant"):
        journal.append({"loss": float("nan")})


def test_a_full_disk_is_a_clear_error_and_takes_the_half_row_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append({"a": 1})

        def full(descriptor: int, line: bytes) -> int:
            if len(line) < 8:
                raise OSError(28, "No space left on device")
            return real(descriptor, line[: len(line) // 2])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StoreError, match=r"No space left[\s\S]*nothing that was done is lost"):
            journal.append({"b": "x" * 50})
        monkeypatch.undo()
        journal.append({"c": 3})
        assert journal.rows() == [{"a": 1}, {"c": 3}]
        assert journal.num_damaged == 0
