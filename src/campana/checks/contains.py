"""`contains`: given words are in the answer, or are not.

{"kind": "contains", "all_of": ["salt", "water"], "none_of": ["sorry"]}       # a third of the value each
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, Self

from pydantic import model_validator

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text, shown
from campana.records import Answer, Item


class Contains(Check):
    """The share of the demands that are met: each of `all_of`, `any_of` as one, each of `none_of`."""

    kind: Literal["contains"] = "contains"
    all_of: tuple[str, ...] = ()
    """Each must be in the answer."""
    any_of: tuple[str, ...] = ()
    """At least one must be in the answer."""
    none_of: tuple[str, ...] = ()
    """None may be in the answer."""
    whole_words: bool = True
    """`art` is not in `start`. Chinese has no spaces, so it makes no difference there."""
    case_sensitive: bool = False
    """Whether `Paris` and `paris` differ."""

    @model_validator(mode="after")
    def _demands(self) -> Self:
        if not (self.all_of or self.any_of or self.none_of):
            raise ValueError("needs all_of, any_of or none_of")
        if not all(text.strip() for text in (*self.all_of, *self.any_of, *self.none_of)):
            raise ValueError("an empty text is in every answer")
        return self

    def score(self, item: Item, answer: Answer) -> Outcome:  # noqa: ARG002 - the demands are all in the check
        """The share of the demands that are met."""
        text = final_text(answer)
        missing = [wanted for wanted in self.all_of if not self._in(text, wanted)]
        if self.any_of and not any(self._in(text, wanted) for wanted in self.any_of):
            missing.append(" or ".join(self.any_of))
        barred = [unwanted for unwanted in self.none_of if self._in(text, unwanted)]
        demands = len(self.all_of) + bool(self.any_of) + len(self.none_of)
        told = [f"lacks {shown(wanted)}" for wanted in missing] + [f"has {shown(unwanted)}, which it must not" for unwanted in barred]
        met = demands - len(told)
        return Outcome(
            met / demands, ", ".join(told) or ("has all that it must" if self.all_of or self.any_of else "has nothing that it must not")
        )

    def _in(self, text: str, wanted: str) -> bool:
        text, wanted = (self._plain(part) for part in (text, wanted))
        if not self.whole_words:
            return wanted in text
        left, right = (r"(?<![^\W_\u3040-\u9fff])" if _spaced(ch) else "" for ch in (wanted[0], wanted[-1]))
        right = right.replace("?<!", "?!")
        return re.search(f"{left}{re.escape(wanted)}{right}", text) is not None

    def _plain(self, text: str) -> str:
        text = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip()
        return text if self.case_sensitive else text.casefold()


def _spaced(ch: str) -> bool:
    """Whether words that have this letter at an end are kept apart by spaces."""
    return ch.isalnum() and not "\u3040" <= ch <= "\u9fff"
