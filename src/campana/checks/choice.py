"""`choice`: the right letter of a multiple-choice question is named.

{"kind": "choice", "value": "B", "options": ["Lyon", "Paris", "Nice"]}     # "B", "(b) Paris", "The answer is B.", "选B", "Paris"
"""

from __future__ import annotations

import re
from string import ascii_uppercase
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text, fold, half_width, shown, without_emphasis
from campana.records import Answer, Item

_LETTER = r"\s*[:=]?\s*[(\[{]?\s*([A-Za-z])(?![A-Za-z'])"
_ANSWER = re.compile(
    r"(?:\b(?:answer(?:\s+is)?|(?:choice|option)\s+is)(?:\s*:)?(?:\s+(?:option|choice))?"
    r"|答案(?:是|为|选)?(?:选项)?|正确(?:选项|答案)(?:是|为)?|选项[是为]|[故应]?选(?:择)?)" + _LETTER,
    re.IGNORECASE,
)
"""What says that a letter is the answer."""
_MENTIONED = re.compile(
    r"(?:\b(?:choice|option)|选项)"
    + _LETTER
    + r"(?!['’.,)\]]?\s*(?:(?:is|are|was|does)(?:n't|n’t|\s+not)|is\s+(?:wrong|incorrect|false)|[是就]?[不错误]))",
    re.IGNORECASE,
)
"""What speaks of an option, and not against it."""
_LEADING = re.compile(r"\A\s*[(\[]?\s*([A-Za-z])\s*(?:[)\].:,、。;]|\Z|\n)")
_LEADING_WORD = re.compile(r"\A\s*([B-HJ-Z])\s")
_STANDING = re.compile(r"(?<![A-Za-z0-9'])([A-Z])(?![A-Za-z0-9'])")


class Choice(Check):
    """The answer names the right option, by its letter or by its text, and no other."""

    kind: Literal["choice"] = "choice"
    version: ClassVar[int] = 2
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
        """The letters that a text chooses: after the last `answer is`; else at its start; else after the last `option`; else by an option's
        text; else standing alone.
        """
        text = without_emphasis(half_width(text))
        letters = self._letters()
        for pattern in (_ANSWER, _LEADING, _MENTIONED, _LEADING_WORD):
            found = [match[1].upper() for match in pattern.finditer(text) if match[1].upper() in letters and not _is_article(match)]
            if found:
                return [found[-1]]
        whole = fold(text)
        folded = [(letter, fold(option)) for letter, option in zip(letters, self.options, strict=False)]
        texts = [letter for letter, option in folded if option == whole] or _held(whole, folded)
        if texts:
            return texts
        standing = [found for found in _STANDING.findall(text) if found in letters]
        return sorted({letter for letter in standing if not (letter in "AI" and re.search(rf"\b{letter}\s+(?!or\b|and\b)[a-z]", text))})


def _is_article(found: re.Match[str]) -> bool:
    """`The answer is a matter of taste` does not choose A."""
    return found[1] == "a" and re.match(r"\s+[a-z]", found.string[found.end() :]) is not None


def _held(text: str, options: list[tuple[str, str]]) -> list[str]:
    """The letters of the options whose words stand in the text, and not only within those of a longer one (acid, amino acid)."""
    spans = {letter: [found.span() for found in re.finditer(_words(option), text)] for letter, option in options if option}
    longer = [span for each in spans.values() for span in each]

    def is_inside(span: tuple[int, int]) -> bool:
        return any(start <= span[0] and span[1] <= end and end - start > span[1] - span[0] for start, end in longer)

    return [letter for letter, each in spans.items() if any(not is_inside(span) for span in each)]


def _words(option: str) -> str:
    """Whole words; Chinese has no spaces between them."""
    return rf"(?<![a-z0-9]){re.escape(option)}(?![a-z0-9])"
