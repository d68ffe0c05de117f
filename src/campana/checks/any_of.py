"""`any_of`: the best of several checks counts.

    {"kind": "any_of", "checks": [{"kind": "exact", "value": "x * 2"}, {"kind": "regex", "pattern": "^2 ?\\\\* ?x$"}]}

For questions that have several kinds of right answers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from campana.checks._protocol import Check, Outcome
from campana.parts import part_of
from campana.records import Answer, Item


class AnyOf(Check):
    """The greatest value of its checks, with that check's reason. Unscored where one of them is and none of the others gives 1."""

    kind: Literal["any_of"] = "any_of"
    checks: tuple[Annotated[SerializeAsAny[Check], part_of("check")], ...] = Field(min_length=1)
    """The checks; their `weight` and `gate` mean nothing here."""

    def score(self, item: Item, answer: Answer) -> Outcome:
        """0..1, or unscored."""
        outcomes = [check.score(item, answer) for check in self.checks]
        best = max(outcomes, key=lambda outcome: outcome.value or 0.0)
        unscored = next((outcome for outcome in outcomes if outcome.value is None), None)
        return unscored if unscored and best.value != 1 else best
