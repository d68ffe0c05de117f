"""Negation: the first auxiliary verb of an English question is contracted with *not*. "Who was king?" -> "Who wasn't king?"."""

from __future__ import annotations

import re
from random import Random
from typing import Literal

from campana.reading.edits.operator import Operator, Refused
from campana.reading.examples import Example
from campana.reading.triples import Edit

_NEGATED = {
    **{word: f"{word}n't" for word in ("is", "are", "was", "were", "do", "does", "did", "could", "would", "should")},
    "can": "can't",
    "will": "won't",
}
"""have, has and had are not here: without a parse they may be main verbs ("How many haven't a car?" is wrong)."""
_AUXILIARY = re.compile(rf"(?<![\w'’-])(?:{'|'.join(_NEGATED)})(?![\w'’-])", re.IGNORECASE)
_NEGATIVE = re.compile(r"(?:\b(?:not|no|never|none|nothing|nobody|neither|nor|without|cannot)\b|n['’]t\b)", re.IGNORECASE)
_DEGREE = re.compile(r"\bhow\s+(?!do\b|does\b|did\b|is\b|are\b|was\b|were\b|can\b|could\b|will\b|would\b|should\b)", re.IGNORECASE)
"""How many, how high: "How high isn't it?" is no question that a person asks."""


class Negation(Operator):
    """Contracts the first auxiliary verb with *not* (English)."""

    kind: Literal["negation"] = "negation"

    def edit(self, example: Example, random: Random) -> Edit | Refused:  # noqa: ARG002  (nothing to choose)
        """The one possible edit; nothing is chosen."""
        question = example.question
        if _NEGATIVE.search(question):
            return Refused("the question is negative already")
        if _DEGREE.search(question):
            return Refused("it asks for a degree")
        found = _AUXILIARY.search(question)
        if found is None:
            return Refused("no auxiliary verb")
        old = found.group()
        new = _NEGATED[old.lower()]
        return Edit(found.start(), found.end(), old, new[0].upper() + new[1:] if old[0].isupper() else new)
