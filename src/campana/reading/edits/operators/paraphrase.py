"""Answerable paraphrase: rules that keep the answer. "When did Rome fall?" -> "In what year did Rome fall?", where the answer is a year."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

from campana.reading.edits.english import with_article
from campana.reading.edits.operator import Operator, Refused
from campana.reading.examples import Example
from campana.reading.triples import Edit


@dataclass(frozen=True, slots=True)
class _Rule:
    found: re.Pattern[str]
    """Its first group is what is replaced."""
    new: tuple[str, ...]
    answer: re.Pattern[str] | None = None
    """What the answer must match as a whole."""


_AUX = r"(?=\s+(?:did|do|does|was|were|is|are|can|could|will|would)\b)"
_YEAR = re.compile(r"(?:in\s+)?1\d{3}|(?:in\s+)?20\d\d", re.IGNORECASE)
_DATE = re.compile(r"(?:on\s+)?[A-Z][a-z]+\s+\d{1,2},\s+\d{4}|(?:on\s+)?\d{1,2}\s+[A-Z][a-z]+\s+\d{4}")


def _rule(found: str, *new: str, answer: re.Pattern[str] | None = None) -> _Rule:
    return _Rule(re.compile(found), new, answer)


_RULES = (
    _rule(rf"^(When){_AUX}", "In what year", "In which year", answer=_YEAR),
    _rule(r"^(In (?:what|which) year)(?=\s+(?:did|was|were)\b)", "When", answer=_YEAR),
    _rule(r"^((?:What|Which) year)(?=\s+(?:did|was|were)\b)", "In what year", "When", answer=_YEAR),
    _rule(rf"^(When){_AUX}", "On what date", "On which date", answer=_DATE),
    _rule(rf"^(Where){_AUX}(?!.*\b(?:from|to|at|in)\s*\?)", "In what place", "At what place"),
    _rule(rf"^(Why){_AUX}", "For what reason"),
    _rule(r"^(How many)(?=\s+(?!(?:more|times|years)\b)[a-z]+s\b)", "What number of"),
    _rule(rf"^(How){_AUX}", "In what way"),
    _rule(
        r"^(Who)(?=\s+(?!(?:is|are|was|were|did|does|do|has|have|had|can|could|will|would)\b)[a-z]+(?:ed|ew|ote|ade|an)\b)",
        "Which person or group",
    ),
    _rule(r"\b((?<=[Ww]hat )kind|(?<=[Ww]hich )kind)(?= of\b)", "type", "sort"),
    _rule(r"\b((?<=[Ww]hat )type|(?<=[Ww]hich )type)(?= of\b)", "kind", "sort"),
    _rule(r"^(What)(?=\s+(?:year|city|country|state|university|school|team|company|group|language|position|person|event)\b)", "Which"),
    _rule(r"^(Which)(?=\s+(?!of\b|(?:is|was|are|were)\b)[a-z]+\b)", "What"),
    _rule(r"^(What(?: is|'s) the name of)(?=\s+the\b)", "What do people call"),
    _rule(r"\b(approximately)\b", "about", "roughly"),
    _rule(r"\b(located)\b", "situated"),
    _rule(r"\b(biggest)\b", "largest"),
    _rule(r"\b(largest)\b", "biggest"),
    _rule(r"(?<=[a-z] )(begin)(?=\b(?!\s+with))", "start"),
    _rule(r"(?<=[a-z] )(began)\b", "started"),
    _rule(r"(?<=[a-z] )(founded)\b(?! on\b| in the\b)", "established"),
    _rule(r"(?<=[a-z] )(established)\b(?! as\b)", "set up"),
    _rule(r"(?<=[a-z] )(constructed)\b", "built"),
    _rule(r"(?<=[a-z] )(built)\b", "constructed"),
    _rule(r"(?<=[a-z] )(purchased?)\b(?<=ed)", "bought"),
    _rule(r"(?<=[a-z] )(purchase)\b", "buy"),
    _rule(r"(?<=[a-z] )(assist)\b", "help"),
    _rule(r"(?<=[a-z] )(residents)\b", "inhabitants"),
    _rule(r"(?<=[a-z] )(important)\b", "significant"),
    _rule(r"(?<=[a-z] )(obtain)\b", "get"),
    _rule(r"(?<=[a-z] )(utilized?)\b(?<=ed)", "used"),
    _rule(r"(?<=[a-z] )(stated)\b", "said"),
    _rule(r"(?<=[a-z] )(frequently)\b", "often"),
    _rule(r"(?<=[a-z] )(attempt)(?= to\b)", "try"),
    _rule(r"(?<=[a-z] )(permitted)(?= to\b)", "allowed"),
    _rule(r"(?<=[a-z] )(needed)(?= to\b)", "required"),
    _rule(r"(?<=[a-z] )(required)(?= to\b)", "needed"),
)


class Paraphrase(Operator):
    """Says the question in other words that keep its answer, by rules (English)."""

    answerable: ClassVar[bool] = True
    kind: Literal["paraphrase"] = "paraphrase"

    def edit(self, example: Example, random: Random) -> Edit | Refused:
        """One of the possible edits."""
        question, answer = example.question, example.spans[0].of(example.passage)
        found = [
            (match, rule)
            for rule in _RULES
            if (rule.answer is None or rule.answer.fullmatch(answer)) and (match := rule.found.search(question)) is not None
        ]
        if not found:
            return Refused("no rule fits")
        match, rule = random.choice(found)
        start, end, new = with_article(question, match.start(1), match.end(1), random.choice(rule.new))
        return Edit(start, end, question[start:end], new)
