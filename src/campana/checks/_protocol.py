"""The protocol of a check: a rule that scores one answer."""

from __future__ import annotations

from dataclasses import dataclass

from campana.parts import Part
from campana.records import Answer, Item


@dataclass(frozen=True, slots=True)
class Outcome:
    """0..1 with a reason; or None with the reason why the answer cannot be scored (no reference, say). Never 0 for that."""

    value: float | None
    reason: str


class Check(Part):
    """A rule. One file in `checks` each."""

    def score(self, item: Item, answer: Answer) -> Outcome:
        """What the last turn of `answer` is worth to this rule."""
        raise NotImplementedError
