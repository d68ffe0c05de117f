"""Counterparts of answerable questions: every operator once a seed, what it refused counted by reason.

    problems = Problems()
    family = make_family(example, [find("edit", "number")()], seeds=[0], problems=problems)

The same question id, operator and seed give the same edit, whatever else is made beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from campana.parts import kind_of
from campana.reading.edits.operator import Operator, Refused
from campana.reading.examples import Example, Problems
from campana.reading.triples import Counterpart, Family


def edited(question: str, start: int, end: int, new: str) -> str:
    """The question with characters `start` to `end` replaced."""
    return question[:start] + new + question[end:]


def limited(family: Family, most: int, seed: int) -> Family:
    """At most `most` of its counterparts, drawn by the question's id and the seed, in their order."""
    if len(family.counterparts) <= most:
        return family
    random = Random(json.dumps([family.id, "limited", seed]))
    kept = sorted(random.sample(range(len(family.counterparts)), most))
    return replace(family, counterparts=tuple(family.counterparts[index] for index in kept))


def make_family(example: Example, operators: Iterable[Operator], seeds: Sequence[int], problems: Problems) -> Family | None:
    """The question with what the operators made of it; None where it has no answer that stands in its passage.

    Refused edits are counted in `problems` as `<operator>: <reason>`; an edit that an earlier seed made already is refused too.
    """
    if not example.answerable or not example.spans:
        problems.add("not a question with an answer in its passage", example.id)
        return None
    made: list[Counterpart] = []
    for operator in operators:
        kind, seen = kind_of(type(operator)), set[str]()
        for seed in seeds:
            random = Random(json.dumps([example.id, kind, seed]))
            edit = operator.edit(example, random)
            if isinstance(edit, Refused):
                problems.add(f"{kind}: {edit.reason}", example.id)
                continue
            question = edited(example.question, edit.start, edit.end, edit.new)
            if question in seen:
                problems.add(f"{kind}: another seed made it already", example.id)
                continue
            seen.add(question)
            name = f"{example.id}#{kind}:{seed}"
            made.append(Counterpart(name, question, operator.answerable, example.spans[0], kind, edit, seed))
    return Family(example.id, example.document, example.passage, example.question, example.spans[0], tuple(made))
