"""Files of questions, good and bad: what is wrong is mended or kept, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.errors import DataError
from campana.reading.examples import Example, Problems, Span
from campana.reading.files import load_examples, read_examples, read_predictions, write_examples
from campana.reading.locate import locate
from campana.reading.salvage import salvage

DATA = Path(__file__).parents[3] / "shared" / "data"
PASSAGE = "Anna went to Rome in 1998.  Ben stayed."


def squad(*questions: dict[str, Any], passage: str = PASSAGE, title: str = "Trips") -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": title, "paragraphs": [{"qas": list(questions), "context": passage}]}]}


def question(number: int = 1, **changes: Any) -> dict[str, Any]:
    row = {"id": f"q{number}", "question": "Where?", "answers": [{"text": "Rome", "answer_start": 13}], "is_impossible": False}
    return {**row, **changes}


def read(path: Path, content: Any) -> tuple[tuple[Example, ...], dict[str, int]]:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    problems = Problems()
    return tuple(read_examples(path, problems)), dict(problems.counts)


def test_squad_json(tmp_path: Path) -> None:
    impossible = question(2, answers=[], is_impossible=True, plausible_answers=[{"text": "1998", "answer_start": 21}])
    for indent in (None, 1):
        content = json.dumps(squad(question(), impossible), indent=indent)
        (first, second), problems = read(tmp_path / "f.json", content)
        assert first == Example("q1", "Where?", PASSAGE, "Trips", True, ("Rome",), (Span(13, 17),))
        assert (second.answerable, second.texts, second.plausible) == (False, (), (Span(21, 25),))
        assert problems == {}


@pytest.mark.parametrize(
    "answers",
    [
        [{"text": "Rome", "answer_start": 13}],
        {"text": ["Rome"], "answer_start": [13]},
        {"text": "Rome", "answer_start": 13},
        ["Rome"],
        "Rome",
    ],
    ids=["squad", "hub", "one", "texts", "text"],
)
def test_rows_in_all_forms_of_answers(tmp_path: Path, answers: Any) -> None:
    (example,), problems = read(tmp_path / "f.jsonl", {"id": 7, "question": "Where?", "context": PASSAGE, "answers": answers})
    assert (example.id, example.answerable, example.texts, example.spans) == ("7", True, ("Rome",), (Span(13, 17),))
    assert problems == {}
    assert example.document.startswith("passage:")


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"id": "1", "title": "T", "context": PASSAGE, "question": "Where?", "answers": {"text": ["Rome"], "answer_start": [13]}},
        {"id": "2", "title": "T", "context": PASSAGE, "question": "Why?", "answers": {"text": [], "answer_start": []}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    first, second = load_examples(tmp_path / "f.parquet")
    assert (first.answerable, first.spans, second.answerable) == (True, (Span(13, 17),), False)


@pytest.mark.parametrize(
    ("text", "offset", "expected", "how"),
    [
        ("Rome", 13, "Rome", "exact"),
        ("Rome", 2, "Rome", "found again"),
        (" Rome ", 12, "Rome", "exact"),
        ("rome", 13, "Rome", "found in another form"),
        ("１９９８", 0, "1998", "found in another form"),
        ("1998. Ben", 21, "1998.  Ben", "found in another form"),
    ],
)
def test_an_answer_not_at_its_offset_is_found_again(text: str, offset: int, expected: str, how: str) -> None:
    found = locate(text, offset, PASSAGE)
    assert found is not None
    assert (found.span.of(PASSAGE), found.how) == (expected, how)


def test_the_nearest_occurrence_is_taken() -> None:
    passage = "Rome, Rome, Rome."
    assert [locate("Rome", offset, passage).span.start for offset in (0, 2, 5, 99)] == [0, 0, 6, 12]  # type: ignore[union-attr]


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=30), st.text(min_size=1, max_size=8), st.text(max_size=30), st.integers(-5, 80))
def test_an_answer_that_is_in_the_passage_is_always_found(before: str, answer: str, after: str, offset: int) -> None:
    passage = before + answer + after
    found = locate(answer, offset, passage)
    assert (found is None) == (not answer.strip())
    if found is not None:
        assert found.span.of(passage) == answer.strip()


def test_bad_rows_are_counted_and_nothing_else_is_lost(tmp_path: Path) -> None:
    rows = [
        question(1, is_impossible="false"),
        question(1, question="Again?"),
        question(2, is_impossible="True", answers=[]),
        question(3, answers=[{"text": "Paris", "answer_start": 0}]),
        question(4, answers=[{"text": "Rome", "answer_start": 3}]),
        question(5, question=" "),
        question(6, is_impossible=True),
        question(7, answers=[]),
        question(8, is_impossible="perhaps"),
        {"id": "q9"},
        question(10, question="\ud800?"),
    ]
    examples, problems = read(tmp_path / "f.json", squad(*rows))
    assert [example.id for example in examples] == ["q1", "q1#2", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q10"]
    assert [example.answerable for example in examples] == [True, True, False, True, True, True, False, None, True, True]
    assert examples[1].written_id == "q1"
    assert (examples[3].texts, examples[3].spans) == (("Paris",), ())
    assert examples[6].plausible == (Span(13, 17),)
    assert problems == {
        "is_impossible as text": 3,
        "duplicate id": 1,
        "answer not in the passage (kept for scoring)": 1,
        "answer not at its offset (found again)": 1,
        "empty question": 1,
        "impossible, but with answers (taken as plausible ones)": 1,
        "possible, but without an answer (not scored, not learnt from)": 1,
        "is_impossible not understood (taken as not said)": 1,
        "no question": 1,
        "lone surrogates (replaced)": 1,
    }


@pytest.mark.parametrize(
    ("answers", "texts", "answerable", "problem"),
    [
        ({"text": ["Rome"], "answer_start": 13}, ("Rome",), True, None),
        ({"text": ["Rome"], "answer_start": 1e999}, ("Rome",), True, "answer_start that is not a number (the answer is looked for)"),
        ([{"text": "Rome", "answer_start": "x"}], ("Rome",), True, "answer_start that is not a number (the answer is looked for)"),
        ({"text": 5, "answer_start": [13]}, (), None, "answer that is not a text (left out)"),
        ([5, "Rome"], ("Rome",), True, "answer that is not a text (left out)"),
        ({"text": None, "answer_start": None}, (), False, None),
    ],
)
def test_a_malformed_answer_is_counted_and_the_rest_is_read(
    tmp_path: Path, answers: Any, texts: tuple[str, ...], answerable: bool | None, problem: str | None
) -> None:
    rows = [{**question(1), "context": PASSAGE}, {"id": "q2", "question": "Where?", "context": PASSAGE, "answers": answers}]
    examples, problems = read(tmp_path / "f.jsonl", "\n".join(json.dumps(row) for row in [*rows, {**rows[0], "id": "q3"}]))
    assert [example.id for example in examples] == ["q1", "q2", "q3"]
    assert (examples[1].texts, examples[1].answerable) == (texts, answerable)
    assert examples[1].spans == ((Span(13, 17),) if texts else ())
    assert problems == ({} if problem is None else {problem: 1})


def test_a_file_cut_off_is_read_to_its_last_whole_question(tmp_path: Path) -> None:
    paragraphs = [{"context": f"{PASSAGE} {n}", "qas": [question(10 * n + k) for k in range(3)]} for n in range(4)]
    whole = json.dumps({"version": "2", "data": [{"title": "T", "paragraphs": paragraphs}]})
    for cut in range(20, len(whole), 97):
        examples, problems = read(tmp_path / "f.json", whole[:cut])
        assert sum(problems.values()) >= 1
        complete = whole[:cut].count('"is_impossible": false}')
        assert len(examples) == complete
    everything, problems = read(tmp_path / "f.json", whole)
    assert (len(everything), problems) == (12, {})


def test_a_broken_line_costs_only_itself_and_a_long_one_nothing(tmp_path: Path) -> None:
    long = {"id": "long", "question": "Where?", "context": "Rome. " * (10_000_000 // 6), "answers": ["Rome"]}
    lines = [json.dumps({**question(1), "context": PASSAGE}), '{"id": "q2", "question', json.dumps(long), '{"id": "cut", "quest']
    examples, problems = read(tmp_path / "f.jsonl", "\n".join(lines))
    assert [example.id for example in examples] == ["q1", "long"]
    assert sum(problems.values()) == 2


def test_a_file_without_questions_says_what_a_question_is(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text('{"text": "nothing"}\n')
    with pytest.raises(DataError, match="no question in this file") as caught:
        load_examples(tmp_path / "f.jsonl")
    assert "answer_start" in str(caught.value)


def test_salvage_keeps_brackets_in_texts_apart() -> None:
    assert salvage('{"data": [{"a": "}]\\"{"}, {"a": 2}, {"a"', ["data"]) == {"data": [{"a": '}]"{'}, {"a": 2}]}
    assert salvage('{"data": [{"a": [{"b": 1}, ', ["data"]) is None
    assert salvage('{"data": ', ["data"]) is None
    for cut in ("{", "}", "]", "\\", '\\"', "\\\\"):
        assert salvage('{"data": [{"a": 1}, {"a": "}[ ' + cut, ["data"]) == {"data": [{"a": 1}]}


texts = st.text(alphabet="Rome in１９ \n，😀é", min_size=1, max_size=30)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(texts, st.integers(0, 20), st.integers(1, 9), st.sampled_from([True, False, None])), max_size=5))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    examples = []
    for number, (passage, start, length, answerable) in enumerate(rows):
        span = Span(min(start, len(passage) - 1), min(start + length, len(passage)))
        if span.end <= span.start or span.of(passage) != span.of(passage).strip() or not span.of(passage):
            continue
        spans, text = (span,), span.of(passage)
        first = passage.find(text)
        spans = (Span(first, first + len(text)),) if answerable else ()
        plausible = (span,) if answerable is False else ()
        examples.append(Example(str(number), "Where?", passage, "T", answerable, (text,) if answerable else (), spans, plausible))
    path = tmp_path_factory.mktemp("rows") / "f.jsonl"
    assert write_examples(path, examples) == len(examples)
    problems = Problems()
    assert tuple(read_examples(path, problems)) == tuple(examples)
    assert not problems.counts.keys() - {"empty passage"}


def test_an_answer_with_white_space_around_it_is_read_back_at_its_place(tmp_path: Path) -> None:
    written = Example("1", "Where?", "Rome, then Rome again", "T", True, (" Rome ",), (Span(11, 15),))
    write_examples(tmp_path / "f.jsonl", [written])
    assert load_examples(tmp_path / "f.jsonl") == (written,)


def test_predictions_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"q1": "Rome", "q2": ""}')
    (tmp_path / "b.jsonl").write_text('{"schema": "campana.reading/1", "id": "q1", "answer": "Rome"}\n{"id": "q2", "answer": null}\n')
    assert read_predictions(tmp_path / "a.json") == read_predictions(tmp_path / "b.jsonl") == {"q1": "Rome", "q2": ""}
    breaks = "Rome\x0b\x0c\x1c\x85\u2028\u2029Paris"
    rows = [json.dumps({"id": name, "answer": breaks}, ensure_ascii=False) for name in ("q1", "q2")]
    (tmp_path / "d.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert read_predictions(tmp_path / "d.jsonl") == {"q1": breaks, "q2": breaks}
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(DataError, match="not predictions"):
        read_predictions(tmp_path / "c.json")


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "num_questions", "num_impossible", "num_mended"),
    [
        ("squad2/dev-v2.0.json", 11_873, 5_945, 0),
        ("squad2/squad1.1-train-subset.json", 4_000, 0, 0),
        ("squad2_unansq/unansq_dev_squad2train_pairs.json", 3_610, 1_805, 0),
        ("mrc_zh_cmrc2018/cmrc2018_train.json", 10_142, 0, 21),
        ("mrc_xquad/xquad.zh.json", 1_190, 0, 0),
    ],
)
def test_real_files(name: str, num_questions: int, num_impossible: int, num_mended: int) -> None:
    problems = Problems()
    examples = load_examples(DATA / name, problems)
    assert len(examples) == num_questions
    assert sum(example.answerable is False for example in examples) == num_impossible
    assert problems.counts.total() == num_mended
    for example in examples:
        assert all(span.of(example.passage) in [text.strip() for text in example.texts] for span in example.spans)
