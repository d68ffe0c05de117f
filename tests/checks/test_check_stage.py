"""From a suite and a folder of answers to `scores.jsonl`: order, combination, gates, errors with their place, the meter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.checks import parse_checks, score_item
from campana.checks._score import score_answers
from campana.errors import DataError
from campana.parts import find, known
from campana.records import Answer, Item, Score, read_jsonl, write_jsonl

FOUR = {"kind": "number", "value": 4}


def item_of(*checks, reference=None):
    return Item("q1", "sums", ({"role": "user", "content": "2+2?"},), "en", reference, checks)


def scored(text, *checks, reference=None, finish="stop"):
    item = item_of(*checks, reference=reference)
    return score_item(item, Answer("q1", (text,), finish, 1, 1), parse_checks(item))


def test_an_item_is_worth_the_mean_of_its_checks():
    score = scored("It is 4, I think", FOUR, {"kind": "length", "at_most": 2})
    assert score.value == 0.5
    assert score.reason == "number 1: found 4 (last number in the answer); length 0: asked for at most 2 words, found 5"
    assert [(part["check"], part["value"]) for part in score.parts] == [("number", 1), ("length", 0)]


def test_weights_count():
    assert scored("It is 4, I think", {**FOUR, "weight": 3}, {"kind": "length", "at_most": 2}).value == 0.75


def test_a_gate_multiplies_and_is_not_in_the_mean():
    gate = {**FOUR, "gate": True}
    half = [{"kind": "length", "at_most": 2}, {"kind": "format", "no_commas": True}]
    assert scored("it is 4", gate, *half).value == 0.5
    assert scored("it is 5", gate, *half).value == 0
    assert scored("4", gate).value == 1


def test_one_check_that_cannot_score_leaves_the_item_unscored():
    score = scored("4", FOUR, {"kind": "chrf"})
    assert score.value is None
    assert score.reason == "no reference to compare with"


@pytest.mark.parametrize("text", ["", "  \n", "<think>hm"])
def test_saying_nothing_satisfies_nothing(text):
    score = scored(text, {"kind": "format", "no_commas": True}, {"kind": "regex", "pattern": "x", "absent": True})
    assert score.value == 0
    assert "the answer is empty" in score.reason


def test_an_answer_that_was_cut_is_scored_as_it_stands_and_says_so():
    score = scored("4 because", FOUR, finish="length")
    assert score.value == 1
    assert score.reason.endswith("(the answer was cut at the most tokens allowed)")


@given(st.lists(st.tuples(st.sampled_from(["4", "5"]), st.floats(0.1, 10), st.booleans()), min_size=1, max_size=6))
@settings(deadline=None, max_examples=100)
def test_any_combination_stays_between_nothing_and_all(parts):
    checks = [{"kind": "number", "value": int(value), "weight": weight, "gate": gate} for value, weight, gate in parts]
    value = scored("4", *checks).value
    assert 0 <= value <= 1
    assert (value == pytest.approx(1)) == all(right == "4" for right, _, _ in parts)
    assert not any(gate and right == "5" for right, _, gate in parts) or value == 0


@pytest.mark.parametrize(
    ("check", "where", "said"),
    [
        ({"kind": "nubmer", "value": 4}, "item 'q1', checks[1].kind", "did you mean 'number'?"),
        ({"kind": "number", "valeu": 4}, "item 'q1', checks[1].valeu", "did you mean 'value'?"),
        ({"kind": "number", "value": "four"}, "item 'q1', checks[1].value", "valid integer"),
        ({"value": 4}, "item 'q1', checks[1]", "without a kind"),
        ({"kind": "regex", "pattern": "("}, "item 'q1', checks[1].pattern", "not a pattern"),
        ({"kind": "json", "json_schema": {"type": "objekt"}}, "item 'q1', checks[1].json_schema", "not a JSON Schema"),
        ({"kind": "length"}, "item 'q1', checks[1]", "needs exactly"),
        ({"kind": "format"}, "item 'q1', checks[1]", "demands nothing"),
        ({"kind": "format", "only_items": True}, "item 'q1', checks[1]", "demands nothing"),
        ({"kind": "contains"}, "item 'q1', checks[1]", "needs all_of"),
        ({"kind": "choice", "value": "F"}, "item 'q1', checks[1]", "'F' is not one of A, B, C, D"),
        (7, "item 'q1', checks[1]", "an object with a kind, not 7"),
        ({"kind": "all_of", "checks": [{"kind": "exact", "valeu": "x"}]}, "item 'q1', checks[1].checks[0].valeu", "did you mean 'value'?"),
        ({"kind": "all_of", "checks": [{"kind": "exat"}]}, "item 'q1', checks[1].checks[0]", "did you mean 'exact'?"),
    ],
)
def test_a_wrong_check_is_named_with_its_place(check, where, said):
    with pytest.raises(DataError) as caught:
        parse_checks(item_of(FOUR, check))
    assert caught.value.where == where
    assert said in str(caught.value)


def test_a_new_field_at_its_default_leaves_the_identity_alone():
    check = find("check", "number")
    assert check(value=4, weight=1.0, gate=False).identity() == check(value=4).identity()
    assert "weight" not in check(value=4).identity()
    assert check(value=4, gate=True).identity() != check(value=4).identity()


def test_every_check_has_a_field_documentation_and_a_kind_of_its_own():
    for kind, part in known("check").items():
        assert part.__doc__, kind
        assert all(field.description for field in part.model_fields.values() if field.annotation and field.default != kind), kind


@pytest.fixture
def folder(tmp_path):
    """A suite of three items, of which `generate` asks the first and the last where it may ask two."""
    rows = [
        {"id": "b", "category": "sums", "language": "en", "prompt": "2+2?", "checks": [FOUR]},
        {"id": "a", "category": "sums", "language": "en", "prompt": "2+3?", "checks": [{"kind": "number", "value": 5}]},
        {
            "id": "c",
            "category": "talk",
            "language": "en",
            "messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Bye"}],
        },
    ]
    suite = tmp_path / "suite.jsonl"
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    answers = tmp_path / "answers"
    answers.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    return suite, answers, out


def run(folder, answers, default=None):
    suite, answers_dir, out = folder
    write_jsonl(answers_dir / "answers.jsonl", answers)
    meter = score_answers(suite_path=suite, suite_format="campana", answers_dir=answers_dir, default=default, out_dir=out)
    return meter, list(read_jsonl(out / "scores.jsonl", Score))


def test_an_item_that_was_asked_and_not_answered_is_an_error(folder):
    # Two of the three would be one of each category.
    with pytest.raises(DataError, match="asked, and not answered") as caught:
        run(folder, [B, Answer("a", ("5",), "stop", 1, 1)])
    assert caught.value.where == "item 'c'"


B, C = Answer("b", ("4",), "stop", 5, 1), Answer("c", ("Hi", "Bye"), "length", 9, 4)


def test_scores_are_in_the_order_of_the_suite_and_leave_out_what_was_not_asked(folder):
    meter, scores = run(folder, [C, B])
    assert [(score.item_id, score.value) for score in scores] == [("b", 1.0), ("c", None)]
    reason = "the item names no check and there is no default"
    assert scores[1].reason == reason
    assert meter == {
        "num_items": 2,
        "num_scored": 1,
        "num_unscored": 1,
        "num_cut": 1,
        "checks": {"number": {"scored": 1, "unscored": 0}},
        "unscored": {reason: 1},
    }


def test_the_default_scores_items_without_checks(folder):
    default = find("check", "contains").model_validate({"all_of": ["bye"]})
    _, scores = run(folder, [B, C], default)
    assert [(score.parts[0]["check"], score.value) for score in scores] == [("number", 1.0), ("contains", 1.0)]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([B, B], "two answers to one item"),
        ([Answer("x", ("4",), "stop", 1, 1)], "the suite does not hold"),
        ([B, Answer("c", ("Hi",), "stop", 1, 1)], "2 turns were asked and 1 answered"),
        ([], "no answers"),
    ],
)
def test_answers_that_do_not_fit_the_suite_are_refused(folder, answers, said):
    with pytest.raises(DataError, match=said):
        run(folder, answers)


def test_scoring_loads_no_model_library(folder, tmp_path):
    suite, answers_dir, out = folder
    write_jsonl(answers_dir / "answers.jsonl", [B])
    code = (
        "import sys; from pathlib import Path; from campana.checks._score import score_answers\n"
        f"score_answers(suite_path=Path({str(suite)!r}), suite_format='campana', answers_dir=Path({str(answers_dir)!r}), default=None,"
        f" out_dir=Path({str(out)!r}))\nprint([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
