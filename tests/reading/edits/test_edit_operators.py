"""Laws of edit operators, and what each makes of chosen questions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.errors import UserError
from campana.parts import known
from campana.reading.edits.make import make_family
from campana.reading.edits.operator import Operator, Refused
from campana.reading.edits.operators.negation import Negation
from campana.reading.edits.operators.number import Number
from campana.reading.examples import Example, Problems, Span
from campana.reading.triples import read_families, write_families


def _ready(operator: Operator) -> bool:
    try:
        operator.require()
    except UserError:
        return False
    return True


OPERATORS = [made for part in known("edit").values() if isinstance(made := part(), Operator) and _ready(made)]
PIECES = [
    "When did Rome fall in ",
    "1990",
    "１９９０",
    "3月",
    "é",
    "e\u0301",
    "1\ufe0f\u20e3",
    "😀",
    "was",
    "n't",
    "2,500",
    "7th",
    "1920s",
    " ",
    "two",
    "May",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=8).map("".join)


def example(question: str, passage: str) -> Example:
    return Example("q", question, passage, "d", True, (passage[:1],), (Span(0, 1),))


@settings(deadline=None)
@given(texts, texts.map(lambda text: "x" + text), st.integers(0, 9))
def test_offsets_hold_and_the_same_seed_makes_the_same(question: str, passage: str, seed: int) -> None:
    family = make_family(example(question, passage + question), OPERATORS, [seed], Problems())
    assert family is not None
    for made in family.counterparts:
        assert made.edit is not None
        edit = made.edit
        assert question[edit.start : edit.end] == edit.old != edit.new
        assert question[: edit.start] + edit.new + question[edit.end :] == made.question
    alone = [make_family(example(question, passage + question), [one], [seed], Problems()) for one in OPERATORS]
    assert family.counterparts == tuple(made for one in alone if one for made in one.counterparts)


@given(texts, texts, st.integers(0, 9))
def test_a_new_number_never_stands_in_the_passage(question: str, passage: str, seed: int) -> None:
    edit = Number().edit(example(question, passage + " " + question), Random(seed))
    if not isinstance(edit, Refused):
        assert edit.new not in (passage + " " + question).split()


@pytest.mark.parametrize(
    ("question", "old", "shape"),
    [
        ("How many of the 2,500 men left?", "2,500", r"\d,\d00"),
        ("Who came on the 3rd of the month?", "3rd", r"(2nd|\dth)"),
        ("What began in the 1920s?", "1920s", r"1[89]\d0s"),
        ("谁在１９９０年来？", "１９９０", r"[１-２][０-９]{3}"),
        ("他在11月来吗？", "11", r"1[02]"),
        ("Who was its first king?", "first", r"[a-z]+th|third"),
        ("Who left in March?", "March", r"[A-Z][a-z]+"),
    ],
)
def test_a_number_keeps_its_form(question: str, old: str, shape: str) -> None:
    for seed in range(20):
        edit = Number().edit(example(question, question or "x"), Random(seed))
        assert not isinstance(edit, Refused)
        assert edit.old == old
        assert re.fullmatch(shape, edit.new), edit


@pytest.mark.parametrize(
    "question",
    [
        "",
        "Which jet is the F-16?",
        "What is 3.5 here?",
        "Why 1\ufe0f\u20e3?",
        "When is 10:30?",
        "Who may go in 007?",
        "When was it first used?",
    ],
)
def test_pieces_of_other_words_are_left_alone(question: str) -> None:
    assert isinstance(Number().edit(example(question, question or "x"), Random(0)), Refused)


def test_a_number_that_the_passage_has_not_is_left_alone() -> None:
    refused = Number().edit(example("What two cities?", "Rome and Athens."), Random(0))
    assert refused == Refused("its numbers do not stand in the passage, or are adverbs")


@pytest.mark.parametrize(
    ("question", "made"),
    [
        ("Who was king?", "Who wasn't king?"),
        ("Is it so?", "Isn't it so?"),
        ("When will it end?", "When won't it end?"),
        ("How was it made?", "How wasn't it made?"),
        ("How high is it?", "it asks for a degree"),
        ("Who was not king?", "the question is negative already"),
        ("Who reigned?", "no auxiliary verb"),
        ("Who reigned on the can-do island?", "no auxiliary verb"),
        ("", "no auxiliary verb"),
    ],
)
def test_negation(question: str, made: str) -> None:
    edit = Negation().edit(example(question, "x"), Random(0))
    got = edit.reason if isinstance(edit, Refused) else question[: edit.start] + edit.new + question[edit.end :]
    assert got == made


def test_what_is_refused_is_counted_and_families_are_written_and_read_back(tmp_path: Path) -> None:
    problems = Problems()
    family = make_family(example("Who was king in 1990?", "Max was king in 1990."), OPERATORS, [0, 1], problems)
    assert family is not None
    assert {made.operator for made in family.counterparts} >= {"negation", "number"}
    assert problems.counts["negation: another seed made it already"] == 1
    assert make_family(replace(example("Who?", "Max."), answerable=False), OPERATORS, [0], problems) is None
    assert problems.counts["not a question with an answer in its passage"] == 1
    path = tmp_path / "made.jsonl"
    write_families(path, [family])
    assert list(read_families(path, Problems())) == [family]
