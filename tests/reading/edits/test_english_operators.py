"""Operators that know English: what they make of real questions, what they leave alone, and the filter by a reader."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from edit_questions import installed, made, question_on

from campana.errors import UserError
from campana.parts import known
from campana.reading.answer import Candidate, ReaderAnswer
from campana.reading.edits.judge import judged
from campana.reading.edits.make import limited, make_family
from campana.reading.edits.operator import Refused
from campana.reading.edits.operators.antonym import Antonym
from campana.reading.edits.operators.condition import Condition
from campana.reading.edits.operators.entity import Entity
from campana.reading.edits.operators.exclusion import Exclusion
from campana.reading.edits.operators.paraphrase import Paraphrase
from campana.reading.edits.wordnet import antonyms, wordnet_folder
from campana.reading.examples import Example, Problems, Span
from campana.reading.files import write_examples
from campana.reading.triples import Counterpart, Family, read_families

ROME = (
    "Rome was sacked in 476. Many citizens fled to Ravenna, the larger city of the north. Odoacer became king after the battle. "
    "Athens was ruled by Justinian, who closed its schools in 529. He was the youngest ruler of the east."
)


def asked(question: str, answer: str, passage: str = ROME) -> Example:
    return question_on(passage, question, answer)


def test_an_entity_becomes_one_of_its_kind_that_does_not_stand_beside_the_answer() -> None:
    operator = Entity()
    installed(operator)
    example = asked("When was Rome sacked?", "476")
    for question in made(operator, example):
        assert question.startswith("When was ")
        name = question.removeprefix("When was ").removesuffix(" sacked?")
        assert name != "Rome"
        assert name not in ROME.split(".", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("When was it sacked?", "no named entity"),
        ("When did Vietnam fall?", "its named entities do not stand in the passage as such"),
    ],
)
def test_names_that_are_no_names_of_the_passage_are_left_alone(question: str, said: str) -> None:
    operator = Entity()
    installed(operator)
    assert made(operator, asked(question, "476")) == {said}


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("What is the larger city?", "Ravenna", {"What is the smaller city?"}),
        ("Who is the youngest ruler?", "Justinian", {"Who is the oldest ruler?"}),
        ("Who closed the schools?", "Justinian", {"Who opened the schools?"}),
        ("Who fled there?", "citizens", {"no word with an antonym"}),
    ],
)
def test_an_antonym_has_the_form_of_its_word(question: str, answer: str, expected: set[str]) -> None:
    operator = Antonym()
    installed(operator)
    assert made(operator, asked(question, answer)) == expected


def test_an_article_agrees_with_the_new_word() -> None:
    operator = Antonym()
    installed(operator)
    example = asked("Was it an ugly city?", "Ravenna")
    assert made(operator, example) <= {"Was it a beautiful city?"}


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Which city lies in the north?", "Ravenna", {"Which city lies in the south?", "Which city lies in the west?"}),
        ("Who became king after the battle?", "Odoacer", {"Who became king before the battle?", "Who became queen after the battle?"}),
        ("Who was the youngest ruler?", "Justinian", {"Who was the oldest ruler?", "Who was the newest ruler?"}),
        ("Which city lies in the south?", "Ravenna", {"its words of closed classes do not stand in the passage"}),
        ("Who lives in the north Sea?", "citizens", {"no word of a closed class"}),
        ("Who is he?", "Justinian", {"no word of a closed class"}),
    ],
)
def test_a_word_becomes_another_of_its_class_that_the_passage_has_not(question: str, answer: str, expected: set[str]) -> None:
    found = made(Exclusion(), asked(question, answer), 60)
    assert found <= expected
    assert found


def test_a_condition_is_one_of_which_the_passage_says_nothing() -> None:
    passage = "The battle was won by the queen in 1805."
    example = asked("Who won the battle?", "the queen", passage)
    assert all(question.startswith("Who won the battle in ") for question in made(Condition(), example))
    example = asked("What did the queen win?", "The battle", passage)
    for question in made(Condition(), example, 80):
        added = question.removeprefix("What did the queen win ").removesuffix("?")
        kind, said = added.rsplit(" ", 1)
        assert kind.split()[0] in {"in", "before"}
        assert said not in passage
        assert not said.isdigit() or int(said) < 1705


@pytest.mark.parametrize("question", ["Why did Rome fall?", "What is he known for?", "What was the name of the king", "Who is he with?"])
def test_questions_that_take_no_condition_are_left_alone(question: str) -> None:
    assert isinstance(Condition().edit(asked(question, "476"), Random(0)), Refused)


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("When was Rome sacked?", "476", {"no rule fits"}),
        ("When were the schools closed?", "in 1529", {"In what year were the schools closed?", "In which year were the schools closed?"}),
        ("Which city was larger?", "Ravenna", {"What city was larger?"}),
        ("Why did they flee?", "sacked", {"For what reason did they flee?"}),
    ],
)
def test_a_paraphrase_keeps_what_is_asked(question: str, answer: str, expected: set[str]) -> None:
    passage = ROME + " Closed in 1529."
    assert made(Paraphrase(), asked(question, answer, passage)) == expected
    assert Paraphrase.answerable


def test_wordnet_gives_the_opposites_of_the_commoner_senses() -> None:
    installed(Antonym())
    folder = wordnet_folder("")
    assert antonyms(folder, "large", "adj") == ["small"]
    assert antonyms(folder, "increase", "verb") == ["decrease"]
    assert antonyms(folder, "zeppelin", "noun") == []


def test_an_absent_wordnet_is_told_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        wordnet_folder(str(tmp_path))
    assert "wordnet-base" in str(caught.value.hint)


def test_a_limit_draws_the_same_counterparts_each_time() -> None:
    family = make_family(
        asked("Who became king after the battle?", "Odoacer"), [Exclusion(), Condition(), Paraphrase()], range(8), Problems()
    )
    assert family is not None
    small = limited(family, 2, 0)
    assert len(small.counterparts) == 2
    assert small == limited(family, 2, 0)
    assert set(small.counterparts) < set(family.counterparts)
    assert limited(small, 5, 0) == small


class Scripted:
    """A reader that answers by a table: question -> (text or None, P(no answer))."""

    def __init__(self, told: dict[str, tuple[str | None, float]]) -> None:
        self.told = told

    def answer(self, examples: Iterable[Example], *, threshold: float | None = None, num_candidates: int = 5) -> Iterator[ReaderAnswer]:
        for example in examples:
            text, p_no_answer = self.told[example.question]
            at = None if text is None else example.passage.index(text)
            end = None if text is None or at is None else at + len(text)
            yield answer_of(example.id, text, at, end, p_no_answer)


def answer_of(identifier: str, text: str | None, start: int | None, end: int | None, p_no_answer: float) -> ReaderAnswer:
    return ReaderAnswer(
        id=identifier,
        answer=text,
        start=start,
        end=end,
        p_no_answer=p_no_answer,
        margin=0.0,
        threshold=0.0,
        reason=None,
        num_windows=1,
        question_cut=False,
        nbest=(Candidate("x", 0, 1, 0.0, 0.5),),
    )


def test_the_filter_sets_aside_what_stays_answerable_and_what_no_longer_is() -> None:
    span = Span(ROME.index("476"), ROME.index("476") + 3)
    others = tuple(
        Counterpart(f"q#{name}", name, answerable, span, "entity")
        for name, answerable in (("still", False), ("unsure", False), ("gone", False), ("kept", True), ("lost", True))
    )
    family = Family("q", "d", ROME, "own", span, others)
    told: dict[str, tuple[str | None, float]] = {
        "own": ("476", 0.1),
        "still": ("476", 0.05),
        "unsure": ("476", 0.4),
        "gone": (None, 0.9),
        "kept": ("in 476", 0.3),
        "lost": ("Ravenna", 0.3),
    }
    problems = Problems()
    (found,) = judged([family], Scripted(told), problems)
    assert [other.verdict for other in found.counterparts] == ["still answerable", "kept", "kept", "kept", "no longer answerable"]
    assert problems.counts == {"entity: still answerable": 1, "entity: no longer answerable": 1}
    (unknown,) = judged([replace(family, question="other")], Scripted({**told, "other": (None, 0.9)}), Problems())
    assert {other.verdict for other in unknown.counterparts} == {"unfiltered"}


def test_the_command_writes_counterparts_and_says_how_many(campana: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    example = asked("Who became king after the battle?", "Odoacer")
    write_examples(tmp_path / "questions.jsonl", [example, replace(example, id="u", answerable=False, texts=(), spans=())])
    out = tmp_path / "made.jsonl"
    words = ("read", "edit", str(tmp_path / "questions.jsonl"), "-o", str(out), "--operators", "exclusion,condition")
    code, _, err = campana(*words)
    assert code == 0, err
    (family,) = read_families(out, Problems())
    assert [other.operator for other in family.counterparts] == ["exclusion", "condition"]
    assert "1 questions, 2 counterparts: condition 1, exclusion 1" in err
    first = out.read_bytes()
    assert campana(*words)[0] == 0
    assert out.read_bytes() == first
    code, _, err = campana(*words[:-1], "exclusoin")
    assert code == 2
    assert "exclusion" in err


def test_the_command_leaves_an_older_file_alone_where_there_is_no_question(
    campana: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "empty.jsonl").write_text(
        json.dumps({"id": "1", "question": "?", "context": "p", "is_impossible": True}) + "\n", encoding="utf-8"
    )
    (tmp_path / "made.jsonl").write_text("old\n", encoding="utf-8")
    code, _, _ = campana("read", "edit", str(tmp_path / "empty.jsonl"), "-o", str(tmp_path / "made.jsonl"), "--operators", "number")
    assert code == 2
    assert (tmp_path / "made.jsonl").read_text(encoding="utf-8") == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jsonl", "made.jsonl"]


def test_all_operators_are_known() -> None:
    assert set(known("edit")) == {"antonym", "chinese_entity", "condition", "entity", "exclusion", "negation", "number", "paraphrase"}
