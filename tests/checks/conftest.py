"""One answer to one question, scored by a check that is written as in a suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from campana.checks import Outcome, parse_checks
from campana.records import Answer, Item

Scored = Callable[..., Outcome]


def an_item(*checks: dict[str, Any], reference: str | None = None, language: str = "en") -> Item:
    return Item("q1", "any", ({"role": "user", "content": "?"},), language, reference, checks)


def an_answer(text: str, finish: str = "stop") -> Answer:
    return Answer("q1", (text,), finish, 1, 1)  # type: ignore[arg-type]  # a literal given by tests


@pytest.fixture
def outcome() -> Scored:
    """`outcome(text, kind, reference=..., **fields)`: what one check says of one answer."""

    def score(text: str, kind: str, *, reference: str | None = None, **fields: Any) -> Outcome:
        item = an_item({"kind": kind, **fields}, reference=reference)
        return parse_checks(item)[0].score(item, an_answer(text))

    return score
