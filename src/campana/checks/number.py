"""`number`: the right number is in the answer, at the place that counts.

{"kind": "number", "value": 42}                          # the last number of the answer
{"kind": "number", "value": 0.333, "tolerance": 0.001, "take": "marked"}
"""

from __future__ import annotations

from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import Field

from campana.checks._numbers import Number, numbers, plain, prepared
from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text, shown
from campana.records import Answer, Item

MARKERS = ("answer is", "answer:", "answer =", "####", "\\boxed{", "答案是", "答案为", "答案:", "结果是", "结果为", "等于")
"""What comes before the answer, lower case."""


class NumberCheck(Check):
    """One number of the answer equals the value. Compared exactly, as fractions: `0.5`, `1/2`, `50%` and `五十分之二十五` are equal."""

    kind: Literal["number"] = "number"
    version: ClassVar[int] = 2
    value: int | float | None = None
    """The right number; None: the one that the item's reference holds, taken in the same way."""
    take: Literal["last", "first", "marked"] = "last"
    """Which number counts: the last, the first, or the first after the last marker (`answer is`)."""
    markers: tuple[str, ...] = MARKERS
    """For `marked`: what comes before the answer, whatever its case."""
    tolerance: float = Field(default=0.0, ge=0)
    """How far off it may be."""
    relative: float = Field(default=0.0, ge=0)
    """How far off it may be as a share of the value; the wider of the two counts."""

    def score(self, item: Item, answer: Answer) -> Outcome:
        """1 or 0; unscored where there is no right number to compare with."""
        gold = self._gold(item)
        if isinstance(gold, Outcome):
            return gold
        expected = f"expected {plain(gold[0])}"
        taken = self._taken(final_text(answer))
        if taken is None:
            return Outcome(0.0, f"{expected}, found no number")
        found, where = taken
        if any(self._is_near(reading, value) for reading in found.readings for value in gold):
            return Outcome(1.0, f"found {found.written} ({where})")
        return Outcome(0.0, f"{expected}, found {found.written} ({where})")

    def _is_near(self, found: Fraction, value: Fraction) -> bool:
        return abs(found - value) <= max(Fraction(self.tolerance), Fraction(self.relative) * abs(value))

    def _gold(self, item: Item) -> tuple[Fraction, ...] | Outcome:
        """The right number in all its readings."""
        if self.value is not None:
            return (Fraction(str(self.value)),)
        if item.reference is None:
            return Outcome(None, "no reference to compare with")
        taken = self._taken(item.reference)
        return taken[0].readings if taken else Outcome(None, f"the reference {shown(item.reference)} holds no number")

    def _taken(self, text: str) -> tuple[Number, str] | None:
        """The number that counts, and where it was found. Without a marker, `marked` takes the last number."""
        found = numbers(text)
        if not found:
            return None
        if self.take == "first":
            return found[0], "first number in the answer"
        if self.take == "marked":
            lowered = prepared(text).lower()
            position, marker = max((lowered.rfind(marker.lower()), marker) for marker in self.markers)
            after = [number for number in found if number.start >= position + len(marker)] if position >= 0 else []
            if after:
                return after[0], f"first number after '{marker}'"
            return found[-1], "last number in the answer, which marks none"
        return found[-1], "last number in the answer"
