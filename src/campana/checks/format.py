"""`format`: the answer has the form that was asked for, whatever it says.

{"kind": "format", "bullets": 3, "case": "lower", "no_commas": true}       # a third of the value each
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from campana.checks import _text
from campana.checks._language import Language, complaint
from campana.checks._protocol import Check, Outcome
from campana.records import Answer, Item

_HIGHLIGHT = re.compile(r"(?<!\*)(\*{1,2})(?=[^\s*])([^*\n]*[^\s*])\1(?!\*)")
_QUOTE_PAIRS = {'"': '"', "“": "”", "「": "」", "『": "』", "«": "»", "'": "'", "‘": "’"}


class Format(Check):
    """The share of the demands on its form that an answer meets."""

    kind: Literal["format"] = "format"
    bullets: int | None = Field(default=None, ge=1)
    """So many lines that start with `-`, `*` or `•`."""
    numbered: int | None = Field(default=None, ge=1)
    """So many lines that are numbered 1, 2, 3 and so on, in order."""
    only_items: bool = False
    """With `bullets` or `numbered`: no other lines."""
    paragraphs: int | None = Field(default=None, ge=1)
    """So many blocks with empty lines between them."""
    case: Literal["lower", "upper", "title"] | None = None
    """All letters are small, or capital, or every word of four letters or more begins with a capital."""
    starts_with: str | None = Field(default=None, min_length=1)
    """The answer starts so, in this case."""
    ends_with: str | None = Field(default=None, min_length=1)
    """The answer ends so, in this case."""
    quoted: bool = False
    """The whole answer is in one pair of quotation marks."""
    no_commas: bool = False
    """There are no commas, Chinese ones included. A thousands separator is one."""
    highlights: int | None = Field(default=None, ge=1)
    """At least so many phrases in `*...*` or `**...**`."""
    language: Language | None = None
    """It is written in this language."""

    @model_validator(mode="after")
    def _demands(self) -> Self:
        inherited = {"kind", *Check.model_fields, "only_items"}
        if all(getattr(self, name) in (None, False) for name in type(self).model_fields if name not in inherited):
            raise ValueError("demands nothing: give bullets, case, starts_with or another")
        if self.only_items and not (self.bullets or self.numbered):
            raise ValueError("only_items needs bullets or numbered")
        if self.bullets and self.numbered:
            raise ValueError("bullets and numbered exclude each other")
        return self

    def score(self, item: Item, answer: Answer) -> Outcome:  # noqa: ARG002 - the demands are all in the check
        """The share of the demands that are met."""
        complaints = list(self._complaints(_text.final_text(answer)))
        wrong = [said for said in complaints if said]
        return Outcome(1 - len(wrong) / len(complaints), ", ".join(wrong) or "has the form that was asked for")

    def _complaints(self, text: str) -> Iterator[str]:
        """One text a demand, empty where it is met."""
        if self.bullets:
            yield _counted("bullets", len(_text.bullets(text)), self.bullets)
        if self.numbered:
            found = [number for number, _ in _text.numbered(text)]
            wanted = list(range(1, self.numbered + 1))
            yield "" if found == wanted else f"asked for lines numbered 1 to {self.numbered}, found {found or 'none'}"
        if self.only_items:
            items = len(_text.bullets(text) if self.bullets else _text.numbered(text))
            others = len(_text.lines(text)) - items
            yield f"{others} other {'line' if others == 1 else 'lines'}" if others else "" if items else "no list"
        if self.paragraphs:
            yield _counted("paragraphs", len(_text.paragraphs(text)), self.paragraphs)
        if self.case:
            yield _case_complaint(self.case, text)
        if self.starts_with:
            yield "" if text.startswith(self.starts_with) else f"starts with {_text.shown(text[: len(self.starts_with)])}"
        if self.ends_with:
            yield "" if text.endswith(self.ends_with) else f"ends with {_text.shown(text[-len(self.ends_with) :])}"
        if self.quoted:
            whole = len(text) > 1 and _QUOTE_PAIRS.get(text[0]) == text[-1]
            yield "" if whole else "is not in quotation marks"
        if self.no_commas:
            commas = sum(text.count(comma) for comma in ",，、")
            yield f"has {commas} {'comma' if commas == 1 else 'commas'}" if commas else ""
        if self.highlights:
            found = len(_HIGHLIGHT.findall(text))
            yield "" if found >= self.highlights else f"asked for {self.highlights} highlighted phrases, found {found}"
        if self.language:
            yield complaint(language=self.language, text=text)


def _counted(what: str, found: int, asked: int) -> str:
    return "" if found == asked else f"asked for {asked} {what if asked != 1 else what[:-1]}, found {found}"


def _case_complaint(case: Literal["lower", "upper", "title"], text: str) -> str:
    cased = [word for word in re.findall(r"[^\W\d_]+", text) if word.lower() != word.upper()]
    if not cased:
        return "has no letters with a case"
    if case == "title":
        wrong = next((word for word in cased if len(word) > 3 and not word[0].isupper()), None)
    else:
        wrong = next((word for word in cased if word != (word.lower() if case == "lower" else word.upper())), None)
    return f"is not all in {case} case: {_text.shown(wrong)}" if wrong else ""
