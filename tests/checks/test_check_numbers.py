"""Which numbers a text holds, and the check on one of them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.checks._numbers import numbers, plain


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,234 kg is 3/4 of 50%", ["1234", "3/4", "50"]),
        ("１，２３４。", ["1234"]),
        ("-5 and −6 and 10-5", ["-5", "-6", "10", "5"]),
        ("-$5, 负5, (-3)", ["-5", "-5", "-3"]),
        ("5 m², H2O, x1, v1.2.3", ["5"]),
        ("on 3/4/2020 at 12:30", ["3", "4", "2020", "12", "30"]),
        ("1.5e3 or .5", ["1500", "1/2"]),
        ("3万元，1.5亿", ["30000", "150000000"]),
        ("这三个数是100，200，300", ["100", "200", "300"]),
        ("3千万, 2百万, 5千, 5千克", ["30000000", "2000000", "5000", "5"]),
        (r"$\frac{3}{4}$ and \boxed{1{,}000}", ["3/4", "1000"]),
        ("**42**. 5-7 1,2,3", ["42", "5", "7", "1", "2", "3"]),
        ("三百二十一", ["321"]),
        ("一万二千三百零五", ["12305"]),
        ("二十亿三千万", ["2030000000"]),
        ("二〇二四年", ["2024"]),
        ("三点一四", ["157/50"]),
        ("百分之五十", ["50"]),
        ("三分之一", ["1/3"]),
        ("负五", ["-5"]),
        ("forty-two", ["42"]),
        ("one thousand two hundred and five", ["1205"]),
        ("minus three", ["-3"]),
        ("That is one good answer: 7", ["7"]),
        ("9" * 400, []),
        ("1/0", ["1"]),
        ("", []),
    ],
)
def test_numbers_of_a_text(text, values):
    assert [str(number.value) for number in numbers(text)] == values


@given(st.integers(-(10**15), 10**15))
@settings(deadline=None, max_examples=200)
def test_a_number_is_read_back_however_it_is_grouped(value):
    for written in (f"{value}", f"It is {value:,}.", f"答案是{value}。", f"**{value}**"):
        assert [number.value for number in numbers(written)] == [value]


@given(st.integers(0, 10**8 - 1))
@settings(deadline=None, max_examples=300)
def test_chinese_numerals_are_read_back(value):
    assert [number.value for number in numbers(_chinese(value))] == [value]


def _chinese(value: int) -> str:
    """As schools teach it: 10203 is 一万零二百零三."""

    def below(n: int) -> str:
        text, gap = "", False
        for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
            digit = n // unit % 10
            if digit:
                text += ("零" if gap and text else "") + "零一二三四五六七八九"[digit] + name
            gap = not digit
        return text

    high, low = divmod(value, 10**4)
    if not value:
        return "零"
    return (below(high) + "万" if high else "") + ("零" if high and 0 < low < 1000 else "") + below(low)


@given(st.fractions(max_denominator=1000))
@settings(deadline=None, max_examples=100)
def test_a_fraction_is_written_so_that_it_reads_back(value):
    assert [number.value for number in numbers(plain(value))] == [value]


def test_the_last_number_counts_unless_said_otherwise(outcome):
    text = "2 + 40 = 42. Check: 42 - 1 = 41"
    found = outcome(text, "number", value=42)
    assert (found.value, found.reason) == (0, "expected 42, found 41 (last number in the answer)")
    assert outcome(text, "number", value=2, take="first").value == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("三千五", "3500"),
        ("三千零五", "3005"),
        ("一万五", "15000"),
        ("一百二", "120"),
        ("十五", "15"),
        ("三点五万", "35000"),
        ("万分之三", "3/10000"),
    ],
)
def test_chinese_numbers_as_they_are_spoken(text, value):
    assert [str(number.value) for number in numbers(text)] == [value]


@pytest.mark.parametrize("text", ["0.5", "1/2", "50%", "50"])
def test_a_reference_in_percent_is_met_by_its_equals(outcome, text):
    assert outcome(text, "number", reference="50%").value == 1


@pytest.mark.parametrize(
    "text", ["The answer is 42, not 41.", "Answer: **42** (of 41)", "答案是：42，不是41", "#### 42\n41", r"\boxed{42} 41"]
)
def test_the_marked_number(outcome, text):
    assert outcome(text, "number", value=42, take="marked").value == 1
    assert outcome(text, "number", value=42).value == 0


def test_marked_without_a_marker_takes_the_last(outcome):
    found = outcome("40 then 42", "number", value=42, take="marked")
    assert (found.value, found.reason) == (1, "found 42 (last number in the answer, which marks none)")


def test_equal_values_written_otherwise(outcome):
    for text in ("0.5", "1/2", "50%", "百分之五十", "5e-1"):
        assert outcome(text, "number", value=0.5).value == 1, text
    assert outcome("50%", "number", value=50).value == 1


def test_tolerance_is_absolute_or_relative_whichever_is_wider(outcome):
    assert outcome("0.333", "number", value=0.3334).value == 0
    assert outcome("0.333", "number", value=0.3334, tolerance=0.001).value == 1
    assert outcome("1010", "number", value=1000, relative=0.01).value == 1
    assert outcome("1011", "number", value=1000, relative=0.01).value == 0


def test_a_gold_that_is_no_number_is_unscored_and_an_answer_without_one_is_wrong(outcome):
    assert outcome("5", "number", reference="it depends").value is None
    found = outcome("it depends", "number", reference="so 5 + 1 = 6")
    assert (found.value, found.reason) == (0, "expected 6, found no number")


def test_half_is_exact():
    assert numbers("0.1")[0].value == Fraction(1, 10)


def test_gold_answers_of_a_real_set_are_right_by_themselves(outcome):
    path = Path(__file__).parents[3] / "shared" / "data" / "math_gsm8k" / "test.jsonl"
    if not path.exists():
        pytest.skip(f"needs {path.relative_to(Path(__file__).parents[3])} beside the repository")
    golds = [json.loads(line)["answer"] for line in path.read_text(encoding="utf-8").splitlines()[::5]]
    for gold in golds:
        last = gold.rsplit("####", 1)[1].strip()
        assert outcome(f"So the answer is **${last}**.", "number", reference=gold).value == 1, gold
        assert outcome(f"The answer is ${last}. Checked 2 times.", "number", reference=gold, take="marked").value == 1, gold
