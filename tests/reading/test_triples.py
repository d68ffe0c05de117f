"""Files of questions with counterparts: what is written is read back, what is wrong is counted, and pairs that people wrote are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from campana.errors import DataError
from campana.reading.examples import Example, Problems, Span
from campana.reading.triples import Counterpart, Edit, Family, read_families, write_families, written_families

PASSAGE = "Rome fell in 476 \U0001f3db."
SPAN = Span(13, 16)
ENTITY = Counterpart("q1#entity:0", "When did Athens fall?", False, SPAN, "entity", Edit(9, 13, "Rome", "Athens"), 3)
ORDER = Counterpart("q1#order:0", "Rome fell when?", True, SPAN, "order", verdict="kept")
REJECTED = Counterpart("q1#number:0", "When did Rome 2 fall?", False, SPAN, "number", seed=1, verdict="still answerable")
FAMILY = Family("q1", "Rome", PASSAGE, "When did Rome fall?", SPAN, (ENTITY, ORDER, REJECTED))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "families.jsonl"
    assert write_families(path, [FAMILY, Family("q2", "", PASSAGE, "Who?", Span(0, 4))]) == 2
    problems = Problems()
    assert list(read_families(path, problems)) == [FAMILY, Family("q2", "", PASSAGE, "Who?", Span(0, 4))]
    assert not problems.counts


def test_only_counterparts_that_the_filter_kept_are_used() -> None:
    assert FAMILY.positives() == (ORDER,)
    assert FAMILY.negatives() == (ENTITY,)


def test_an_unanswerable_counterpart_has_a_plausible_answer_and_no_answer() -> None:
    example = FAMILY.example(ENTITY)
    assert (example.answerable, example.texts, example.spans, example.plausible) == (False, (), (), (SPAN,))
    assert (example.pair_id, example.document, example.passage) == ("q1", "Rome", PASSAGE)
    answerable = FAMILY.example(ORDER)
    assert (answerable.answerable, answerable.texts, answerable.spans, answerable.plausible) == (True, ("476",), (SPAN,), ())


def test_a_wrong_counterpart_is_counted_and_its_family_kept(tmp_path: Path) -> None:
    row = FAMILY.as_dict()
    row["counterparts"][0]["span"] = [13, 99]
    row["counterparts"][2]["verdict"] = "perhaps"
    path = tmp_path / "families.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "span": [4, 4]}) + "\n", encoding="utf-8")
    problems = Problems()
    (family,) = read_families(path, problems)
    assert family.counterparts == (ORDER,)
    assert problems.counts == {"not a counterpart": 2, "not a question with counterparts": 1}


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "Who?", "context": "Anna."}\n', encoding="utf-8")
    with pytest.raises(DataError, match="schema"):
        list(read_families(path, Problems()))


def test_pairs_that_people_wrote_become_families() -> None:
    asked = Example("a", "When did Rome fall?", PASSAGE, "Rome", True, ("476",), (SPAN,), pair_id="b")
    edited = Example("b", "When did Athens fall?", PASSAGE, "Rome", False, plausible=(SPAN,), pair_id="a")
    second = Example("c", "When did Rome rise?", PASSAGE, "Rome", False, plausible=(SPAN,), pair_id="a")
    elsewhere = Example("d", "When?", "Another passage: 476.", "Rome", False, plausible=(Span(17, 20),), pair_id="a")
    unplaced = Example("e", "When did it?", PASSAGE, "Rome", False, pair_id="a")
    alone = Example("f", "Who fell?", PASSAGE, "Rome", True, ("Rome",), (Span(0, 4),), pair_id="gone")
    (family,) = written_families([asked, edited, second, elsewhere, unplaced, alone])
    assert (family.id, family.question, family.span) == ("a", "When did Rome fall?", SPAN)
    assert [(other.id, other.operator, other.answerable) for other in family.counterparts] == [
        ("b", "written", False),
        ("c", "written", False),
    ]
