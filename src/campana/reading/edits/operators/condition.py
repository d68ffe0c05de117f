"""Impossible condition: the question is narrowed by a time or place of which the passage says nothing. "... die in Antarctica?"

A time lies at least a century before the earliest year of the passage; a place is not named in it.
"""

from __future__ import annotations

import re
from random import Random
from typing import Literal

from campana.reading.edits.operator import Operator, Refused
from campana.reading.examples import Example
from campana.reading.triples import Edit

_PLACES = ("in Antarctica", "in Greenland", "in New Zealand", "in Iceland", "in Madagascar", "in Siberia", "in Bolivia")
_END = re.compile(r"\s*\?\s*$")
_OPEN_END = re.compile(
    r"\b(?:in|on|at|of|for|to|from|with|by|as|about|into|over|under|after|before|during|against|through|than|between|called|named|known|"
    r"is|are|was|were|be|do|does|did|has|have|had|it|like)\s*\?\s*$",
    re.IGNORECASE,
)
"""What a condition would be taken into: "What is he known for in Antarctica?"."""
_WHERE = re.compile(r"\b(?:where|country|countries|city|cities|state|states|continent|place|location|region)\b", re.IGNORECASE)
_WHEN = re.compile(r"\b(?:when|year|years|date|century|decade|month|day|old|long|before|after|since|until)\b|\d{4}", re.IGNORECASE)
_NAMING = re.compile(
    r"\b(?:names?|named|terms?|called|known|theorem|theory|nationality|according|address|if|mean|another|nickname)\b", re.IGNORECASE
)
_AUXILIARY = re.compile(r"\b(?:did|was|were)\b", re.IGNORECASE)
_PAST = re.compile(
    r"\b(?:did|was|were)\b|^(?:who|what \w+|which \w+) (?:[a-z]+ed|won|wrote|led|built|made|began|became|took)\b", re.IGNORECASE
)
_COUNT = re.compile(r"how (?:many|much)\b", re.IGNORECASE)
_PLACED = re.compile(r"\b(?:in|at|on|from|of|near|around|across|to)\s+(?:[\w'’-]+\s+){0,3}[A-Z]|\bin\s+(?:[\w'’-]+\s+){1,2}(?=\s*\?)")
_YEAR = re.compile(r"(?<![\d,.])(?:1\d{3}|20[0-2]\d)(?![\d,.]\d|%)")
_EARLIEST = 1100


class Condition(Operator):
    """Adds a time or a place, of which the passage says nothing, at the question's end (English)."""

    kind: Literal["condition"] = "condition"

    def edit(self, example: Example, random: Random) -> Edit | Refused:
        """One of the possible edits."""
        question, passage = example.question, example.passage
        end = _END.search(question)
        if end is None or _OPEN_END.search(question):
            return Refused("its end takes no condition")
        if question.lower().startswith("why") or _NAMING.search(question):
            return Refused("it asks for a reason or a name")
        if not (_PAST.search(question) or _COUNT.match(question)):
            return Refused("it asks for no event and no count")
        conditions: list[str] = []
        if not _WHERE.search(question) and not _PLACED.search(question):
            conditions += [place for place in _PLACES if place.split()[-1].lower() not in passage.lower()]
        years = [int(year) for year in _YEAR.findall(passage)]
        if years and min(years) > _EARLIEST + 200 and _AUXILIARY.search(question) and not _WHEN.search(question):
            latest = (min(years) - 100) // 10 * 10
            conditions += [f"before {year}" for year in range(latest - 100, latest + 1, 10)]
        if not conditions:
            return Refused("it has a time and a place already, or the passage has")
        return Edit(end.start(), end.start(), "", " " + random.choice(conditions))
