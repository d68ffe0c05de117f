"""`exact`: the answer is one given text.

{"kind": "exact", "value": "Paris"}        # "**paris.**" is right, "It is Paris" is not
"""

from __future__ import annotations

from typing import Literal

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text, same_text, shown
from campana.records import Answer, Item


class Exact(Check):
    """The answer is the text and nothing else. Width, white space, emphasis, outer quotation marks and final punctuation do not count."""

    kind: Literal["exact"] = "exact"
    value: str | None = None
    """The text; None: the item's reference."""
    case_sensitive: bool = False
    """Whether `Paris` and `paris` differ."""

    def score(self, item: Item, answer: Answer) -> Outcome:
        """1 or 0; unscored without a text to compare with."""
        expected = self.value if self.value is not None else item.reference
        if expected is None:
            return Outcome(None, "no reference to compare with")
        found = final_text(answer)
        if same_text(found, expected, case_sensitive=self.case_sensitive):
            return Outcome(1.0, f"is {shown(expected)}")
        return Outcome(0.0, f"expected {shown(expected)}, found {shown(found)}")
