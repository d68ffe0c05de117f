"""`length`: the answer is as long as it was asked to be.

{"kind": "length", "unit": "words", "at_most": 10}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

from pydantic import Field, model_validator

from campana.checks import _text
from campana.checks._protocol import Check, Outcome
from campana.records import Answer, Item

_COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(_text.words(text)),
    "characters": _text.characters,
    "sentences": lambda text: len(_text.sentences(text)),
    "lines": lambda text: len(_text.lines(text)),
    "paragraphs": lambda text: len(_text.paragraphs(text)),
}


class Length(Check):
    """The answer has as many units as asked. A Chinese character counts as a word, white space and empty lines not at all."""

    kind: Literal["length"] = "length"
    unit: Literal["words", "characters", "sentences", "lines", "paragraphs"] = "words"
    """What is counted."""
    at_least: int | None = Field(default=None, ge=1)
    """The fewest allowed."""
    at_most: int | None = Field(default=None, ge=1)
    """The most allowed."""
    exactly: int | None = Field(default=None, ge=1)
    """The one number allowed; alone."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        if (self.exactly is None) == (self.at_least is None and self.at_most is None):
            raise ValueError("needs exactly, or at_least and at_most or one of them")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is more than at_most {self.at_most}")
        return self

    def score(self, item: Item, answer: Answer) -> Outcome:  # noqa: ARG002 - the limits are all in the check
        """1 or 0."""
        count = _COUNTS[self.unit](final := _text.final_text(answer))
        low = self.exactly or self.at_least or 0
        high = self.exactly or self.at_most or len(final) + low
        unit = self.unit if count != 1 else self.unit.removesuffix("s")
        if low <= count <= high:
            return Outcome(1.0, f"{count} {unit}")
        asked = f"exactly {self.exactly}" if self.exactly else f"at least {low}" if count < low else f"at most {high}"
        return Outcome(0.0, f"asked for {asked} {self.unit}, found {count}")
