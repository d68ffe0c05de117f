"""The protocol of a check: a rule that scores one answer.

An item may name several checks. Its value is the weighted mean of those that are not gates, times the value of every gate
(`campana.checks._item`). So "the right number, and all in lower case" is two checks of half a point each, and with
`gate: true` on the number the case counts for nothing when the number is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from campana.parts import ADDED, Part
from campana.records import Answer, Item


@dataclass(frozen=True, slots=True)
class Outcome:
    """0..1 with a reason; or None with the reason why the answer cannot be scored (no reference, say). Never 0 for that."""

    value: float | None
    reason: str


class Check(Part):
    """A rule. One file in `checks` each."""

    weight: Annotated[float, ADDED, Field(gt=0)] = 1.0
    """What it counts in the mean over the checks of an item."""
    gate: Annotated[bool, ADDED] = False
    """True: it is left out of the mean, and the mean is multiplied by its value."""

    def score(self, item: Item, answer: Answer) -> Outcome:
        """What the last turn of `answer` is worth to this rule."""
        raise NotImplementedError
