"""Checks of what an answer says: exact, one_of, contains, choice, regex, chrf, rouge_l, all_of, any_of."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.checks._text import fold, runs, sentences, words

SAME_AS_PARIS = [
    "Paris",
    "paris.",
    "**Paris**",
    "“Paris”",
    "  Paris。 ",
    "Ｐａｒｉｓ",
    "`Paris`!",
    "```\nParis\n```",
    "<think>Rome? No.</think>\nParis",
]


@pytest.mark.parametrize("text", SAME_AS_PARIS)
def test_exact_sees_through_how_a_word_is_dressed(outcome, text):
    assert outcome(text, "exact", value="Paris").value == 1


def test_exact_says_what_it_expected_and_found(outcome):
    found = outcome("It is Paris", "exact", reference="Paris")
    assert found.value == 0
    assert found.reason == "expected 'Paris', found 'It is Paris'"
    assert outcome("paris", "exact", value="Paris", case_sensitive=True).value == 0


def test_exact_allows_nothing_beside_and_compares_punctuation_as_it_is(outcome):
    assert outcome("It is\n```\nParis\n```", "exact", value="Paris").value == 0
    assert outcome("?", "exact", value="!").value == 0
    assert outcome("?", "exact", value="?").value == 1


def test_exact_reads_chinese(outcome):
    assert outcome("北京。", "exact", value="北京").value == 1
    assert outcome("「北京」", "exact", value="北京").value == 1
    assert outcome("南京", "exact", value="北京").value == 0


@pytest.mark.parametrize("kind", ["exact", "number", "choice", "chrf", "rouge_l"])
def test_without_a_reference_nothing_is_scored(outcome, kind):
    found = outcome("42", kind)
    assert found.value is None
    assert found.reason == "no reference to compare with"


def test_one_of(outcome):
    assert outcome("Good!", "one_of", values=["positive", "good"]).value == 1
    found = outcome("bad", "one_of", values=["positive", "good"])
    assert (found.value, found.reason) == (0, "expected one of 'positive', 'good', found 'bad'")


def test_contains_counts_the_demands_that_are_met(outcome):
    found = outcome("Salt, I am sorry.", "contains", all_of=["salt", "water"], none_of=["sorry"])
    assert found.value == pytest.approx(1 / 3)
    assert found.reason == "lacks 'water', has 'sorry', which it must not"
    assert outcome("a car", "contains", any_of=["bus", "car"]).value == 1


def test_contains_keeps_to_whole_words_where_words_have_spaces(outcome):
    assert outcome("at the start", "contains", all_of=["art"]).value == 0
    assert outcome("at the start", "contains", all_of=["art"], whole_words=False).value == 1
    assert outcome("我喜欢喝绿茶。", "contains", all_of=["绿茶"]).value == 1
    assert outcome("用Python写", "contains", all_of=["python"]).value == 1
    assert outcome("C++ and C", "contains", all_of=["C++"]).value == 1


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(B)",
        "B. Paris",
        "B) Paris",
        "The answer is B.",
        "Answer: (b)",
        "选B",
        "答案：B",
        "答案是 **B**。",
        "Paris",
        "I think it is Paris.",
        "It must be B, surely",
        "Ｂ",
        "The answer is B. Option A is wrong because it is far.",
        "答案是B。选项A不正确。",
        "**Answer: B**\n\nExplanation: choice A is a city in the south.",
        "B. Paris. Option C is wrong.",
        "Option B is right. Option A is wrong.",
        "Option A isn't it, option B",
        "A is wrong, so the answer is option B",
    ],
)
def test_choice_finds_the_letter_or_its_text(outcome, text):
    assert outcome(text, "choice", value="B", options=["Lyon", "Paris", "Nice"]).value == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("A", "found A"),
        ("Lyon or Paris", "found A and B"),
        ("Either A or B", "found A and B"),
        ("Berlin", "found no option in 'Berlin'"),
        ("A town in the south", "found no option in 'A town in the south'"),
        ("The answer is a matter of taste", "found no option"),
        ("I would say so", "found no option in 'I would say so'"),
        ("The answer is A. B is wrong.", "found A"),
    ],
)
def test_choice_is_wrong_by_another_or_by_two(outcome, text, told):
    found = outcome(text, "choice", value="B", options=["Lyon", "Paris", "Nice"])
    assert found.value == 0
    assert told in found.reason


@pytest.mark.parametrize(
    ("text", "told"), [("It is amino acid.", "chose B"), ("acid", "found A"), ("Acid and amino acid", "found A and B")]
)
def test_an_option_within_another_is_not_meant(outcome, text, told):
    assert told in outcome(text, "choice", value="B", options=["acid", "amino acid"]).reason


def test_choice_takes_the_letter_from_the_reference(outcome):
    assert outcome("C", "choice", reference="答案：C").value == 1
    assert outcome("C", "choice", reference="see the book").value is None


def test_regex_finds_or_matches_whole_or_is_absent(outcome):
    assert outcome("on 2024-05-01", "regex", pattern=r"\d{4}-\d\d-\d\d").value == 1
    assert outcome("on 2024-05-01", "regex", pattern=r"\d{4}-\d\d-\d\d", full=True).value == 0
    assert outcome("YES", "regex", pattern="yes", flags=["ignore_case"]).value == 1
    assert outcome("no digits", "regex", pattern=r"\d", absent=True).value == 1


def test_a_regex_that_backtracks_without_end_is_stopped_and_unscored(outcome):
    start = time.monotonic()
    found = outcome("a" * 5000 + "!", "regex", pattern="(a|a|b?a)+$", timeout_seconds=0.2)
    assert time.monotonic() - start < 5
    assert found.value is None
    assert "backtracks" in found.reason


def test_rouge_l_counts_chinese_characters(outcome):
    assert outcome("我喜欢喝绿茶", "rouge_l", reference="我喜欢喝绿茶。").value == 1
    assert outcome("我喜欢喝红茶", "rouge_l", reference="我喜欢喝绿茶").value == pytest.approx(5 / 6)
    assert outcome("today 我很好", "rouge_l", reference="Today, 我很好").value == 1


def test_rouge_l_is_the_longest_common_subsequence(outcome):
    # Lin (2004): "police killed the gunman" against "police kill the gunman" shares 3 of 4 words in order.
    assert outcome("police kill the gunman", "rouge_l", reference="police killed the gunman").value == pytest.approx(0.75)
    assert outcome("the gunman kill police", "rouge_l", reference="police killed the gunman").value == pytest.approx(0.5)
    assert outcome("police", "rouge_l", reference="police killed the gunman", measure="precision").value == 1
    assert outcome("police", "rouge_l", reference="police killed the gunman", measure="recall").value == 0.25


@given(st.text(alphabet="ab 'c-.,1X\n", max_size=40))
@settings(deadline=None, max_examples=100)
def test_rouge_l_of_english_has_the_tokens_of_rouge_score(text):
    from rouge_score.tokenizers import DefaultTokenizer

    assert runs(text.casefold()) == DefaultTokenizer(use_stemmer=False).tokenize(text)


def test_chrf_orders_answers_by_nearness(outcome):
    near, far = (outcome(text, "chrf", reference="el gato rojo").value for text in ("el gato roja", "the red cat"))
    assert outcome("el gato rojo", "chrf", reference="el gato rojo").value == 1
    assert 0 < far < near < 1
    assert outcome("我喜欢喝红茶", "chrf", reference="我喜欢喝绿茶").value > 0.3
    assert outcome("x", "chrf", references=["y", "x"]).value == 1


def test_all_of_takes_the_worst_and_any_of_the_best(outcome):
    right, wrong = {"kind": "number", "value": 4}, {"kind": "number", "value": 5}
    assert outcome("4", "all_of", checks=[right, wrong]).value == 0
    assert outcome("4", "any_of", checks=[wrong, right]).value == 1
    assert outcome("4", "all_of", checks=[right, "chrf"]).value is None
    assert outcome("4", "any_of", checks=[right, "chrf"]).value == 1
    assert outcome("4", "any_of", checks=[wrong, "chrf"]).value is None


def test_what_a_word_and_a_sentence_are():
    assert words("Don't stop, 我有 2.5 well-known apples…") == ["Don't", "stop", "我", "有", "2.5", "well-known", "apples"]
    assert len(sentences("Dr. Lee paid 3.5 dollars. Why? 他走了。她没走！")) == 4
    assert len(sentences("1. First do this.\n2. Then that.")) == 2
    assert len(sentences("He left (at noon.) Then she did...")) == 2


@given(st.text(max_size=60))
@settings(deadline=None, max_examples=150)
def test_folding_twice_is_folding_once_for_plain_words(text):
    plain = " ".join(words(text))
    assert fold(fold(plain)) == fold(plain)


@given(st.text(max_size=200), st.sampled_from(["exact", "number", "choice", "chrf", "rouge_l"]))
@settings(deadline=None, max_examples=200)
def test_any_answer_gets_a_value_in_range_or_none_and_a_reason(text, kind):
    from campana.checks import parse_checks
    from campana.records import Answer, Item

    item = Item("q", "c", ({"role": "user", "content": "?"},), "en", "B 42", ({"kind": kind},))
    found = parse_checks(item)[0].score(item, Answer("q", (text,), "stop", 1, 1))
    assert found.value is not None
    assert 0 <= found.value <= 1
    assert found.reason
