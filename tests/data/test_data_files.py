from __future__ import annotations

import gzip
import json
import tracemalloc
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.data import files
from campana.data.files import locate_data, read_located_rows, read_rows
from campana.data.format import DroppedRow
from campana.errors import DataError


def reasons(rows) -> list[tuple[int, str | dict]]:
    return [(number, row.reason if isinstance(row, DroppedRow) else row) for number, row in rows]


def test_jsonl_with_a_bom_blank_lines_and_damaged_rows(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": "\xff"}\n[1]\n{"a": }\r\n{"a": "\xe4\xbd\xa0"}\r\n{"a": 2, "b": "cut')
    assert reasons(read_rows(path)) == [
        (1, {"a": 1}),
        (3, "not UTF-8"),
        (4, "not an object"),
        (5, "not JSON"),
        (6, {"a": "你"}),
        (7, "truncated JSON"),
    ]


def test_the_layout_is_told_by_the_content_not_the_name(tmp_path) -> None:
    rows = [{"a": 1}, {"a": {"b": [2]}}]
    forms = {
        "lines.json": "\n".join(map(json.dumps, rows)),
        "array.jsonl": json.dumps(rows),
        "pretty.json": json.dumps(rows, indent=2),
        "one_after_the_other.json": "\n".join(json.dumps(row, indent=2) for row in rows),
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert [row for _, row in read_rows(tmp_path / name)] == rows, name


def test_an_array_with_damaged_elements_loses_only_those(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": 1}, {"a": "\xff\xfe"}, {"a": oops, "b": 3}, {"a": 2}, 5, {"a": 3}, {"a": 4, "b": "never end')
    assert [found for _, found in reasons(read_rows(path))] == [
        {"a": 1},
        "not UTF-8",
        "not JSON",
        {"a": 2},
        "not an object",
        {"a": 3},
        "truncated JSON",
    ]


def test_a_list_within_a_damaged_element_does_not_end_the_array(tmp_path) -> None:
    damaged = '{"turns": [{"b": "say "hi""}, {"b": 1}]}'
    path = tmp_path / "a.json"
    path.write_text(f'[{{"a": 1}}, {damaged}, {{"a": 2}}, {{"a": 3}}]')
    found = [found for _, found in reasons(read_rows(path))]
    assert found == [{"a": 1}, "not JSON", {"b": 1}, {"a": 2}, {"a": 3}]
    path.write_text(f'[{{"a": 1}}, {damaged}]')
    assert [found for _, found in reasons(read_rows(path))] == [{"a": 1}, "not JSON", {"b": 1}]


def test_the_missing_end_of_an_array_is_told_only_where_it_is_asked_for(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, {"a": 2}')
    assert [found for _, found in reasons(read_rows(path))] == [{"a": 1}, {"a": 2}, "truncated JSON"]
    assert [row for *_, row in read_located_rows(path, lambda ordinal: ordinal == 0) if row is not None] == [{"a": 1}]


def test_a_first_line_that_is_cut_costs_no_other(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1,\n{"a": 2}\n{"a": 3}\n')
    assert [found for _, found in reasons(read_rows(path))] == ["not JSON", {"a": 2}, {"a": 3}]


def test_an_array_cut_between_elements_is_counted_as_cut(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1},\n')
    assert [found for _, found in reasons(read_rows(path))] == [{"a": 1}, "truncated JSON"]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=5), values, max_size=4), max_size=8),
    chunk=st.integers(1, 40),
    indent=st.none() | st.just(1),
    ascii_only=st.booleans(),
)
def test_a_streamed_array_reads_as_json_does_wherever_chunks_end(tmp_path_factory, rows, chunk, indent, ascii_only) -> None:
    path = tmp_path_factory.mktemp("a") / "a.json"
    path.write_text(" [" + ",".join(json.dumps(row, indent=indent, ensure_ascii=ascii_only) for row in rows) + "]\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK", chunk)
        assert [row for _, row in read_rows(path)] == rows


def test_a_large_array_needs_memory_for_one_element_and_a_chunk(tmp_path) -> None:
    path = tmp_path / "a.json"
    row = json.dumps({"text": "x" * 1000})
    with path.open("w") as file:
        file.write("[" + row)
        for _ in range(30_000):
            file.write("," + row)
        file.write("]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(path)) == 30_001
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_a_line_of_ten_megabytes(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": "x" * (10 << 20)}) + "\n" + '{"a": "y"}\n')
    assert [len(row["a"]) for _, row in read_rows(path)] == [10 << 20, 1]


def test_parquet_gzip_text_folders_and_globs(tmp_path) -> None:
    pq.write_table(pa.table({"a": list(range(3000)), "b": [["x"]] * 3000}), tmp_path / "b.parquet")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"a": -1}\n')
    (tmp_path / "c.txt").write_text("one\n\ntwo\n")
    (tmp_path / "ignored.csv").write_text("a,b")
    numbers = [row.get("a", row.get("text")) for _, row in read_rows(tmp_path)]
    assert numbers == [-1, *range(3000), "one", "two"]
    assert [row for _, row in read_rows(tmp_path / "*.gz")] == [{"a": -1}]


def test_only_wanted_rows_are_parsed_and_keep_their_numbers(tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 0}\n\nnot json\n{"a": 2}\n')
    (tmp_path / "b.json").write_text('[{"a": 3}, {"a": 4}]')
    pq.write_table(pa.table({"a": [5, 6]}), tmp_path / "c.parquet")
    chosen = {2, 4, 6}
    found = [(number, row) for number, row in read_rows(tmp_path, wanted=chosen.__contains__)]
    assert found == [(4, {"a": 2}), (2, {"a": 4}), (2, {"a": 6})]


def test_files_that_cannot_be_read_at_all_say_what_to_do(tmp_path) -> None:
    (tmp_path / "wide.jsonl").write_text('{"a": 1}', encoding="utf-16")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 but then nothing")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 9)[:-9])
    (tmp_path / "more.json").write_text('[{"a": 1}]\n[{"a": 2}]\n')
    (tmp_path / "list.jsonl").write_text('["a"]\n{"a": 2}\n')
    for path, message in (
        (tmp_path / "wide.jsonl", "UTF-16"),
        (tmp_path / "cut.parquet", "damaged Parquet"),
        (tmp_path / "cut.jsonl.gz", "damaged gzip"),
        (tmp_path / "more.json", "more text after the array"),
        (tmp_path / "list.jsonl", "more text after the array"),
        (tmp_path / "no.json", "no data file"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            list(read_rows(path))
        assert caught.value.hint


def test_an_hf_data_set_that_is_not_in_the_cache_says_what_to_type(tmp_path, monkeypatch) -> None:
    with pytest.raises(DataError, match="not in the local cache") as caught:
        locate_data("hf:someone/certainly-not-here@abc123")
    assert "hf download someone/certainly-not-here --repo-type dataset --revision abc123" in (caught.value.hint or "")
    with pytest.raises(DataError, match="not a pinned data set"):
        locate_data("hf:someone/unpinned")


def test_the_example_files_of_the_shared_data_all_read(shared_data) -> None:
    counts = {
        "instr_llamafactory_demo/alpaca_zh_demo.json": 1000,
        "instr_llamafactory_demo/dpo_zh_demo.json": 300,
        "instr_zh_belle/school_math_dev1K.json": 1000,
        "instr_zh_moss": 1120,
    }
    for name, count in counts.items():
        path = shared_data / name
        path = path / "moss_conversations.jsonl" if path.is_dir() else path
        rows = [row for _, row in read_rows(path)]
        assert len(rows) == count
        assert not any(isinstance(row, DroppedRow) for row in chain(rows))
