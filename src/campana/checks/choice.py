"""`choice`: the right letter of a multiple-choice question is named.

{"kind": "choice", "value": "B", "options": ["Lyon", "Paris", "Nice"]}     # "B", "(b) Paris", "The answer is B.", "选B", "Paris"
"""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import Literal, Self

from pydantic import Field, model_validator

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text, fold, half_width, shown, without_emphasis
from campana.records import Answer, Item

_MARKED = re.compile(
    r"(?:\b(?:answer|choice|option)(?:\s+is)?|答案(?:是|为|选)?|正确(?:选项|答案)(?:是|为)?|故?选(?:择|项)?)\s*[:=]?\s*[(\[{]?\s*([A-Za-z])(?![A-Za-z'])",
    re.IGNORECASE,
)
_LEADING = re.compile(r"\A\s*[(\[]?\s*([A-Za-z])\s*(?:[)\].:,、。;]|\Z|\n|(?<=[B-HJ-Z])\s)")
_STANDING = re.compile(r"(?<![A-Za-z0-9'])([A-Z])(?![A-Za-z0-9'])")


class Choice(Check):
    """The answer names the right option, by its letter or by its text, and no other."""

    kind: Literal["choice"] = "choice"
    value: str | None = Field(default=None, pattern=r"^[A-Za-z]$")
    """The right letter; None: the letter that the item's reference names."""
    options: tuple[str, ...] = ()
    """The texts of options A, B, C, ..., so that an answer in words counts."""
    num_options: int = Field(default=4, ge=2, le=26)
    """How many letters there are, where the options' texts are not given."""

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.value is not None and self.value.upper() not in self._letters():
            raise ValueError(f"{self.value!r} is not one of {', '.join(self._letters())}")
        return self

    def score(self, item: Item, answer: Answer) -> Outcome:
        """1 or 0; unscored where there is no right letter."""
        gold = self.value.upper() if self.value else None
        if gold is None and item.reference is None:
            return Outcome(None, "no reference to compare with")
        if gold is None:
            named = self._named(item.reference or "")
            if len(named) != 1:
                return Outcome(None, f"the reference {shown(item.reference or '')} names no single option")
            gold = named[0]
        found = final_text(answer)
        named = self._named(found)
        if named == [gold]:
            return Outcome(1.0, f"chose {gold}")
        told = " and ".join(named) if named else f"no option in {shown(found)}"
        return Outcome(0.0, f"expected {gold}, found {told}")

    def _letters(self) -> str:
        return ascii_uppercase[: len(self.options) or self.num_options]

    def _named(self, text: str) -> list[str]:
        """The letters that a text chooses: after the last `answer is`; else at its start; else by an option's text; else standing alone."""
        text = without_emphasis(half_width(text))
        letters = self._letters()
        marked = [found[1].upper() for found in _MARKED.finditer(text) if found[1].upper() in letters and not _is_article(found)]
        if marked:
            return [marked[-1]]
        leading = _LEADING.match(text)
        if leading and leading[1].upper() in letters:
            return [leading[1].upper()]
        whole = fold(text)
        texts = [letter for letter, option in zip(letters, self.options, strict=False) if fold(option) == whole]
        texts = texts or [letter for letter, option in zip(letters, self.options, strict=False) if _holds(whole, fold(option))]
        if texts:
            return texts
        standing = [found for found in _STANDING.findall(text) if found in letters]
        return sorted({letter for letter in standing if not (letter in "AI" and re.search(rf"\b{letter}\s+(?!or\b|and\b)[a-z]", text))})


def _is_article(found: re.Match[str]) -> bool:
    """`The answer is a matter of taste` does not choose A."""
    return found[1] == "a" and re.match(r"\s+[a-z]", found.string[found.end() :]) is not None


def _holds(text: str, option: str) -> bool:
    """Whether the option's words stand in the text (Chinese has no spaces between words)."""
    return bool(option) and re.search(rf"(?<![a-z0-9]){re.escape(option)}(?![a-z0-9])", text) is not None
