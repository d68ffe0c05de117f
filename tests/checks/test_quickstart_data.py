"""The quickstart's rows and questions: made again they are the same, disjoint, and right by their own checks."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from campana.checks import parse_checks, score_item
from campana.data.suites import read_suite
from campana.records import Answer

FOLDER = Path(__file__).parents[2] / "studies" / "quickstart"
USE_CASES = {
    "generation", "open_qa", "closed_qa", "classification", "extraction", "rewriting",
    "summarisation", "translation", "brainstorming", "maths", "code", "chain_of_thought",
}  # fmt: skip


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("quickstart_make", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["quickstart_make"] = module
    spec.loader.exec_module(module)
    return module


def rows(name):
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def test_the_maker_makes_what_is_checked_in(maker, tmp_path):
    training, suite = maker.make()
    maker.write(tmp_path / "train.jsonl", training)
    maker.write(tmp_path / "suite.jsonl", suite)
    for name in ("train.jsonl", "suite.jsonl"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), f"run {FOLDER / 'make.py'} again"


def test_every_use_case_has_its_rows_and_questions():
    assert Counter(row["category"] for row in rows("train.jsonl")) == dict.fromkeys(USE_CASES, 30)
    assert Counter(row["category"] for row in rows("suite.jsonl")) == dict.fromkeys(USE_CASES, 12)


def test_no_question_is_in_training():
    asked = {row["prompt"].casefold() for row in rows("suite.jsonl")}
    assert len(asked) == 144
    assert not asked & {row["instruction"].casefold() for row in rows("train.jsonl")}


def test_shared_content_is_refused(maker):
    one, other = maker.task("a?", "b", [], "x", "y"), maker.task("c?", "d", [], "y")
    with pytest.raises(AssertionError, match=r"in training and in evaluation: \['y'\]"):
        maker.assert_disjoint("any", [one], [other])


def test_each_reference_is_right_by_its_own_checks_and_another_is_not():
    items = read_suite(FOLDER / "suite.jsonl", "campana")
    for n, item in enumerate(items):
        checks = parse_checks(item)
        right = score_item(item, Answer(item.id, (item.reference,), "stop", 1, 1), checks)
        assert right.value == pytest.approx(1), (item.id, right.reason)
        other = items[(n + 60) % len(items)].reference
        wrong = score_item(item, Answer(item.id, (other,), "stop", 1, 1), checks)
        assert wrong.value < 0.9, (item.id, other, wrong.reason)
