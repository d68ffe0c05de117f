"""How answers are read: what counts as the same text, and what a word, a sentence, a line, a paragraph and a bullet are.

    fold("**４２。**") == fold("42")            # True
    words("我有 2 apples")                      # ["我", "有", "2", "apples"]

All checks share these readings, so that two rules never disagree on what a word is.
"""

from __future__ import annotations

import re
import unicodedata

from campana.records import Answer

_THOUGHTS = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)
_WHOLE_FENCE = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9])(\*{1,3}|_{2,3}|~~|`+)(?=\S)([^\n]*?\S)\1(?![A-Za-z0-9])")
_SPACE = re.compile(r"\s+")
_QUOTES = "\"'“”‘’«»「」『』《》`"
_END = ".。．!！?？,，;；:：、…"
_IDEOGRAPHS = r"㐀-鿿豈-﫿぀-ヿ\U00020000-\U0003134f"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+(?:(?:['’\-]|(?<=\d)[.,:](?=\d))[^\W_{_IDEOGRAPHS}]+)*")
_RUN = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_SENTENCE_END = re.compile(r"[。！？]+[”’」』）)\"]*|[.!?…]+[\"'”’)\]]*(?=\s|\Z)")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|No|Jr|Sr)|\b[A-Z]|^\s*\d+)\.$")
_BULLET = re.compile(r"^\s*(?:[-*+•·‣–—]|\u25e6)\s+(\S.*)$")
_NUMBERED = re.compile(r"^\s*[(（]?(\d{1,3})[.)）、:：．]\s*(\S.*)$")


def final_text(answer: Answer) -> str:
    """The last turn without surrounding space and without a leading `<think>` block: thoughts are not the answer."""
    return _THOUGHTS.sub("", answer.turns[-1]).strip() if answer.turns else ""


def half_width(text: str) -> str:
    """Full-width ASCII (`４２，Ａ`) as plain ASCII. Unlike NFKC it leaves `m²` alone, which is no number."""
    return "".join(chr(ord(ch) - 0xFEE0) if "！" <= ch <= "～" else " " if ch == "\u3000" else ch for ch in text)


def without_emphasis(text: str) -> str:
    """Without markdown's `**`, `*`, `__`, `~~` and backticks around a phrase. The stars of `2*3*4` stay."""
    return _EMPHASIS.sub(r"\2", text)


def unfenced(text: str) -> str:
    """The inside of the first code fence, or the text where there is none."""
    found = _FENCE.search(text)
    return found.group(1).strip() if found else text


def fold(text: str, *, case_sensitive: bool = False) -> str:
    """The form in which texts are compared.

    NFKC, one space for any run of white space, no markdown emphasis, no code fence around the whole, no surrounding quotation
    marks, no trailing punctuation (Chinese too), and no case unless `case_sensitive`.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    fenced = _WHOLE_FENCE.fullmatch(text)
    text = without_emphasis(fenced.group(1) if fenced else text)
    text = _SPACE.sub(" ", text).strip()
    while text and (text[-1] in _END or text[-1] in _QUOTES or text[0] in _QUOTES):
        text = text[:-1].rstrip() if text[-1] in _END or text[-1] in _QUOTES else text[1:].lstrip()
    return text if case_sensitive else text.casefold()


def same_text(left: str, right: str, *, case_sensitive: bool = False) -> bool:
    """Whether two texts fold to one. Texts that are all punctuation are compared as they are."""
    folded = fold(left, case_sensitive=case_sensitive)
    return folded == fold(right, case_sensitive=case_sensitive) and (bool(folded) or left.strip() == right.strip())


def words(text: str) -> list[str]:
    """Runs of letters and digits (`don't`, `well-known` and `3.5` are one each); a Chinese character or a kana is a word of its own."""
    return _WORD.findall(text)


def runs(text: str) -> list[str]:
    """As `words`, with nothing joined: `don`, `t`. For English in small letters, the tokens of rouge-score."""
    return _RUN.findall(text)


def characters(text: str) -> int:
    """How many characters, white space not counted."""
    return sum(not ch.isspace() for ch in text)


def sentences(text: str) -> list[str]:
    """Split after `.!?` before white space, and after `。！？` anywhere. `3.5`, `Dr.` and `1.` at a line's start do not end a sentence."""
    found: list[str] = []
    for line in lines(text):
        start = 0
        for end in _SENTENCE_END.finditer(line):
            if end.group().startswith(".") and end.end() < len(line) and _ABBREVIATION.search(line[start : end.start() + 1]):
                continue
            found.append(line[start : end.end()].strip())
            start = end.end()
        found.append(line[start:].strip())
    return [sentence for sentence in found if words(sentence)]


def lines(text: str) -> list[str]:
    """The lines with something on them."""
    return [line for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> list[str]:
    """Blocks of lines between empty lines."""
    return [block for block in re.split(r"\n[ \t]*\n", text.strip()) if block.strip()]


def bullets(text: str) -> list[str]:
    """What follows the sign of each line that starts with `-`, `*`, `+` or `•` and a space."""
    return [found.group(1) for line in text.splitlines() if (found := _BULLET.match(line))]


def numbered(text: str) -> list[tuple[int, str]]:
    """Number and text of each line that starts with `1.`, `1)`, `（1）` or `1、`."""
    return [(int(found.group(1)), found.group(2)) for line in text.splitlines() if (found := _NUMBERED.match(half_width(line)))]


def shown(text: str, most: int = 60) -> str:
    """The text in quotation marks, on one line, cut where it is long: for reasons."""
    text = _SPACE.sub(" ", text).strip()
    return f"'{text}'" if len(text) <= most else f"'{text[: most - 3]}...'"
