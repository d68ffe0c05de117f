from __future__ import annotations

import json
from collections import Counter

import pytest

from campana.data.suites import category_of, choose_items, read_suite
from campana.errors import DataError


def test_our_rows_in_all_their_forms(write_rows) -> None:
    path = write_rows(
        "suite.jsonl",
        [
            {
                "id": "a",
                "category": "Open QA",
                "language": "zh",
                "prompt": "几个？",
                "reference": "3",
                "checks": [{"kind": "number", "value": 3}],
            },
            {
                "schema": "campana.item/1",
                "id": "b",
                "category": "chat",
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "1"}, {"role": "user", "content": "2"}],
            },
        ],
    )
    first, second = read_suite(path, "campana")
    assert (first.id, first.category, first.language, first.reference) == ("a", "open qa", "zh", "3")
    assert first.messages == ({"role": "user", "content": "几个？"},)
    assert first.checks == ({"kind": "number", "value": 3},)
    assert [message["role"] for message in second.messages] == ["system", "user", "user"]
    assert (second.language, second.reference, second.checks) == ("en", None, ())


GOOD = {"id": "a", "category": "c", "prompt": "p"}


@pytest.mark.parametrize(
    ("row", "message", "hint"),
    [
        ({**GOOD, "refrence": "x"}, "unknown field 'refrence'", "did you mean 'reference'"),
        ({**GOOD, "id": ""}, "'id' is missing or empty", None),
        ({**GOOD, "id": 3}, "'id' is not a text", None),
        ({"id": "a", "category": "c"}, "either a prompt or messages", "prompt"),
        ({**GOOD, "messages": []}, "either a prompt or messages", None),
        ({"id": "a", "category": "c", "messages": [{"role": "assistant", "content": "x"}]}, "role 'assistant'", "reference"),
        ({"id": "a", "category": "c", "messages": [{"role": "system", "content": "x"}]}, "no user turn", None),
        ({**GOOD, "checks": [{"value": 4}]}, "objects with a kind", "number"),
        ({**GOOD, "reference": 4}, "reference is not a text", None),
        ({**GOOD, "schema": "campana.item/9"}, "campana.item/9", None),
        ([1], "not an object", None),
    ],
)
def test_a_bad_row_is_an_error_with_its_line(row, message, hint, write_rows) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_suite(write_rows("suite.jsonl", [{**GOOD, "id": "first"}, row]), "campana")
    assert caught.value.where is not None
    assert caught.value.where.startswith("suite.jsonl:2")
    assert hint is None or hint in (caught.value.hint or "")


def test_half_a_surrogate_pair_is_no_text(tmp_path) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text(json.dumps({**GOOD, "reference": "\ud83d"}) + "\n", encoding="utf-8")  # As the escape that JSON allows.
    with pytest.raises(DataError, match="half a surrogate pair"):
        read_suite(path, "campana")


def test_two_items_of_one_id_name_both_lines(write_rows) -> None:
    with pytest.raises(DataError, match="already that of line 1") as caught:
        read_suite(write_rows("suite.jsonl", [GOOD, {**GOOD, "prompt": "other"}]), "campana")
    assert caught.value.where == "suite.jsonl:2"


def test_category_names_differ_neither_by_case_nor_by_a_no_break_space() -> None:
    assert {category_of(name) for name in ("closed\u00a0qa", "Closed QA", "closed  qa ", "ｃlosed qa")} == {"closed qa"}


def test_belle_rows(write_rows) -> None:
    rows = [{"question": "q", "class": "closed\u00a0qa", "std_answer": "a"}, {"question": "q2", "class": "generation", "std_answer": ""}]
    first, second = read_suite(write_rows("belle.jsonl", rows), "belle")
    again = read_suite(write_rows("belle.jsonl", rows[::-1]), "belle")
    assert (first.category, first.language, first.reference, second.reference) == ("closed qa", "zh", "a", None)
    assert {first.id, second.id} == {item.id for item in again}
    with pytest.raises(DataError, match="fields question instead of"):
        read_suite(write_rows("belle.jsonl", [{"question": "q"}]), "belle")


def test_all_thousand_items_of_belle_load_in_ten_classes(shared_data) -> None:
    items = read_suite(shared_data / "instr_zh_belle" / "belle_eval_set.jsonl", "belle")
    assert len({item.id for item in items}) == 1000
    counts = Counter(item.category for item in items)
    assert counts["closed qa"] == 52
    assert counts["open qa"] == 285
    assert len(counts) == 10


def test_items_are_chosen_evenly_nested_and_in_the_order_of_the_suite(write_rows) -> None:
    rows = [{"id": f"i{number}", "category": "rare" if number < 3 else f"c{number % 2}", "prompt": "p"} for number in range(40)]
    items = read_suite(write_rows("suite.jsonl", rows), "campana")
    nine, twenty = choose_items(items, 9), choose_items(items, 20)
    assert Counter(item.category for item in nine) == {"rare": 3, "c0": 3, "c1": 3}
    assert len(twenty) == 20
    assert {item.id for item in nine} < {item.id for item in twenty}
    assert twenty == [item for item in items if item in twenty]
    assert choose_items(items, None) == choose_items(items, 400) == items
    assert {item.id for item in choose_items(items[::-1], 9)} == {item.id for item in nine}
