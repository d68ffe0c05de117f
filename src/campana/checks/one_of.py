"""`one_of`: the answer is one of several given texts.

{"kind": "one_of", "values": ["positive", "good"]}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text, same_text, shown
from campana.records import Answer, Item


class OneOf(Check):
    """The answer is one of the texts and nothing else, compared as `exact` does."""

    kind: Literal["one_of"] = "one_of"
    values: tuple[str, ...] = Field(min_length=1)
    """The texts that are right."""
    case_sensitive: bool = False
    """Whether `Paris` and `paris` differ."""

    def score(self, item: Item, answer: Answer) -> Outcome:  # noqa: ARG002 - the texts are all in the check
        """1 or 0."""
        found = final_text(answer)
        for value in self.values:
            if same_text(found, value, case_sensitive=self.case_sensitive):
                return Outcome(1.0, f"is {shown(value)}")
        return Outcome(0.0, f"expected one of {', '.join(map(shown, self.values))}, found {shown(found)}")
