"""Checks of the form of an answer: json, length, format."""

from __future__ import annotations

import time

import pytest

ADA = '{"name": "Ada", "age": 36}'


@pytest.mark.parametrize(
    "text", [ADA, f"```json\n{ADA}\n```", f"Here it is: {ADA}. Good luck!", f"[note] {ADA}", '{"age":36.0,"name":"ada"}']
)
def test_json_is_found_where_models_put_it(outcome, text):
    assert outcome(text, "json", values={"name": "Ada", "age": 36}, only_listed=True).value == 1


def test_bare_json_stands_alone(outcome):
    assert outcome(ADA, "json", bare=True).value == 1
    assert outcome(f"```json\n{ADA}\n```", "json", bare=True).value == 0


def test_each_demand_on_json_counts_alike(outcome):
    found = outcome('{"name": "Eve", "age": "36", "x": 1}', "json", values={"name": "Ada"}, types={"age": "integer"}, only_listed=True)
    assert found.value == pytest.approx(1 / 4)
    assert found.reason == "'age' is no integer, expected name \"Ada\", found \"Eve\", has 'x' too"


@pytest.mark.parametrize("text", ["no JSON", '{"a": 1', "{'a': 1}", '{"a": NaN}', "[" * 100_000, ""])
def test_what_is_not_json_is_worth_nothing(outcome, text):
    assert outcome(text, "json", keys=["a"]).value == 0


def test_json_types(outcome):
    for value, name in (("true", "boolean"), ("1.5", "number"), ("2.0", "integer"), ("null", "null"), ("[]", "array"), ('"x"', "string")):
        assert outcome(f'{{"k": {value}}}', "json", types={"k": name}).value == 1
    assert outcome('{"k": true}', "json", types={"k": "integer"}).value == 0.5
    assert outcome('{"k": true}', "json", values={"k": 1}).value == 0.5


def test_json_against_the_reference(outcome):
    assert outcome('[1, {"a": "B."}]', "json", equals_reference=True, reference='[1.0, {"a": "b"}]').value == 1
    assert outcome("[1]", "json", equals_reference=True, reference="[1, 2]").value == 0.5
    assert outcome("[1]", "json", equals_reference=True, reference="one").value is None
    assert outcome("[1]", "json", equals_reference=True).value is None


def test_json_schema(outcome):
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}
    assert outcome(ADA, "json", json_schema=schema).value == 1
    found = outcome('{"age": -1}', "json", json_schema=schema)
    assert (found.value, found.reason) == (0.5, "age: '-1 is less than the minimum of 0'")


HUGE = "3" * 400


def test_numbers_and_nesting_beyond_a_float_or_the_stack_are_wrong_and_no_crash(outcome):
    assert outcome(f'{{"age": {HUGE}}}', "json", values={"age": 36}).value == 0.5
    assert outcome(f"[{HUGE}]", "json", equals_reference=True, reference="[1.5]").value == 0.5
    assert outcome(f"[{HUGE}]", "json", equals_reference=True, reference=f"[{HUGE}]").value == 1
    for number in ("1e999", HUGE):
        assert outcome(number, "json", json_schema={"multipleOf": 0.01}).value == 0.5
    deep = {"$defs": {"list": {"type": "array", "items": {"$ref": "#/$defs/list"}}}, "$ref": "#/$defs/list"}
    assert outcome("[" * 400 + "]" * 400, "json", json_schema=deep).value == 0.5


def test_a_pattern_in_a_json_schema_cannot_hang(outcome):
    start = time.monotonic()
    found = outcome(f'"{"a" * 5000}!"', "json", json_schema={"type": "string", "pattern": "(a|a|b?a)+$"})
    assert time.monotonic() - start < 10
    assert found.value is None


@pytest.mark.parametrize(
    ("text", "unit", "count"),
    [
        ("Two words", "words", 2),
        ("我有2个苹果", "words", 6),
        ("a b\tc", "characters", 3),
        ("One. Two! Three?", "sentences", 3),
        ("a\n\n b \n", "lines", 2),
        ("a\nb\n\nc", "paragraphs", 2),
    ],
)
def test_length_counts(outcome, text, unit, count):
    assert outcome(text, "length", unit=unit, exactly=count).value == 1
    assert outcome(text, "length", unit=unit, at_least=count, at_most=count).value == 1
    assert outcome(text, "length", unit=unit, at_least=count + 1).value == 0
    found = outcome(text, "length", unit=unit, exactly=count + 1)
    assert (found.value, found.reason) == (0, f"asked for exactly {count + 1} {unit}, found {count}")


@pytest.mark.parametrize(
    ("text", "demand", "met"),
    [
        ("- a\n- b\n- c", {"bullets": 3, "only_items": True}, True),
        ("Sure:\n- a\n- b\n- c", {"bullets": 3}, True),
        ("• a\n* b", {"bullets": 2}, True),
        ("- a\n- b", {"bullets": 3}, False),
        ("1. a\n2) b\n3、c", {"numbered": 3}, True),
        ("1. a\n3. b\n2. c", {"numbered": 3}, False),
        ("a\n\nb", {"paragraphs": 2}, True),
        ("all small 1", {"case": "lower"}, True),
        ("Not small", {"case": "lower"}, False),
        ("LOUD ÉTÉ", {"case": "upper"}, True),
        ("123", {"case": "upper"}, False),
        ("The Lord of the Rings", {"case": "title"}, True),
        ("The lord of the Rings", {"case": "title"}, False),
        ("Dear Sir, hello. Yours", {"starts_with": "Dear"}, True),
        ("Dear Sir, hello. Yours", {"ends_with": "Yours"}, True),
        ("hello", {"starts_with": "Dear"}, False),
        ('"so"', {"quoted": True}, True),
        ("“so”", {"quoted": True}, True),
        ('"so', {"quoted": True}, False),
        ("no comma", {"no_commas": True}, True),
        ("一，二", {"no_commas": True}, False),
        ("*a* and **b c**", {"highlights": 2}, True),
        ("* a\n* b", {"highlights": 1}, False),
    ],
)
def test_each_form_is_told_from_its_like(outcome, text, demand, met):
    found = outcome(text, "format", **demand)
    assert found.value == (1 if met else 0), found.reason


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat is on the table.", "en"),
        ("我喜欢喝绿茶。", "zh"),
        ("私は緑茶が好きです。", "ja"),
        ("나는 녹차를 좋아한다.", "ko"),
        ("Я люблю чай.", "ru"),
        ("El gato está en la mesa.", "es"),
        ("Le chat est sur la table.", "fr"),
        ("Die Katze ist auf dem Tisch.", "de"),
    ],
)
def test_a_text_is_in_its_language_and_in_no_other(outcome, text, language):
    found = {other: outcome(text, "format", language=other).value for other in ("en", "zh", "ja", "ko", "ru", "es", "fr", "de")}
    assert found == {other: float(other == language) for other in found}


def test_chinese_with_english_names_is_chinese(outcome):
    assert outcome("我用Python写了一个程序，它很快很好用。", "format", language="zh").value == 1
    found = outcome("42", "format", language="zh")
    assert (found.value, found.reason) == (0, "asked for Chinese, found no letters")


def test_demands_on_form_count_alike(outcome):
    found = outcome("- A\n- b", "format", bullets=2, case="lower", no_commas=True)
    assert found.value == pytest.approx(2 / 3)
    assert found.reason == "is not all in lower case: 'A'"
