"""`all_of`: the worst of several checks counts.

    {"kind": "all_of", "checks": [{"kind": "number", "value": 42}, {"kind": "length", "at_most": 10}]}

An item's own checks are averaged; this is for answers that are right only as a whole.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from campana.checks._protocol import Check, Outcome
from campana.parts import part_of
from campana.records import Answer, Item


class AllOf(Check):
    """The least value of its checks, with that check's reason. Unscored where one of them is."""

    kind: Literal["all_of"] = "all_of"
    checks: tuple[Annotated[SerializeAsAny[Check], part_of("check")], ...] = Field(min_length=1)
    """The checks; their `weight` and `gate` mean nothing here."""

    def score(self, item: Item, answer: Answer) -> Outcome:
        """0..1, or unscored."""
        outcomes = [check.score(item, answer) for check in self.checks]
        unscored = next((outcome for outcome in outcomes if outcome.value is None), None)
        return unscored or min(outcomes, key=lambda outcome: outcome.value or 0.0)
