"""What tests of operators share: a question on a passage, and all that an operator makes of it."""

from __future__ import annotations

from random import Random

import pytest

from campana.errors import UserError
from campana.reading.edits.make import edited
from campana.reading.edits.operator import Operator, Refused
from campana.reading.examples import Example, Span


def installed(*operators: Operator) -> None:
    """Skip where what an operator needs is absent."""
    for operator in operators:
        try:
            operator.require()
        except UserError as error:
            pytest.skip(f"{error.message}; {error.hint}")


def question_on(passage: str, question: str, answer: str) -> Example:
    at = passage.index(answer)
    return Example("q", question, passage, "d", True, (answer,), (Span(at, at + len(answer)),))


def made(operator: Operator, example: Example, seeds: int = 20) -> set[str]:
    """All questions that the operator makes over some seeds; its reasons where it refuses."""
    found: set[str] = set()
    for seed in range(seeds):
        edit = operator.edit(example, Random(seed))
        if isinstance(edit, Refused):
            found.add(edit.reason)
        else:
            assert example.question[edit.start : edit.end] == edit.old
            found.add(edited(example.question, edit.start, edit.end, edit.new))
    return found
