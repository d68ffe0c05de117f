"""What one answer is worth: the checks of its item, read and combined.

The rule. The value of an item is the weighted mean of its checks that are not gates (1 where all are gates), times the
value of every gate. Where any check cannot score, the item is unscored: a mean over the rest would measure something else.
An empty answer is worth 0 to every check, or saying nothing would satisfy "no commas".
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, cast

from pydantic import ValidationError

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text
from campana.errors import DataError, StudyError
from campana.parts import find, kind_of, nearest
from campana.records import Answer, Item, Score

_BRANCHES = ("int", "float")
"""What pydantic adds to the place of an error in `int | float`."""
_CUT = "the answer was cut at the most tokens allowed"


def parse_checks(item: Item) -> tuple[Check, ...]:
    """The checks that an item names. One that is wrong is a `DataError` with the item, the field and the nearest name."""
    return tuple(_parse(check, f"item {item.id!r}, checks[{n}]") for n, check in enumerate(item.checks))


def score_item(item: Item, answer: Answer, checks: tuple[Check, ...]) -> Score:
    """What `answer` is worth by `checks`, with the outcome of each."""
    if not checks:
        return Score(item.id, item.category, None, "the item names no check and there is no default")
    outcomes = [_outcome(check, item, answer) for check in checks]
    value = _combined(checks, outcomes)
    unscored = [outcome for outcome in outcomes if outcome.value is None]
    told = unscored or outcomes
    if len(checks) == 1 or unscored:
        reason = "; ".join(dict.fromkeys(outcome.reason for outcome in told))
    else:
        reason = "; ".join(
            f"{kind_of(type(check))} {outcome.value:.3g}: {outcome.reason}" for check, outcome in zip(checks, outcomes, strict=True)
        )
    if answer.finish == "length" and value is not None:
        reason += f" ({_CUT})"
    return Score(item.id, item.category, value, reason, tuple(_part(*pair) for pair in zip(checks, outcomes, strict=True)))


def _outcome(check: Check, item: Item, answer: Answer) -> Outcome:
    outcome = check.score(item, answer)
    if outcome.value is not None and not final_text(answer):
        return Outcome(0.0, "the answer is empty")
    assert outcome.value is None or 0 <= outcome.value <= 1, f"{kind_of(type(check))} gave {outcome.value}, which is not in 0..1"
    return outcome


def _combined(checks: tuple[Check, ...], outcomes: list[Outcome]) -> float | None:
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    if len(values) < len(checks):
        return None
    pairs = list(zip(checks, values, strict=True))
    weight = sum(check.weight for check in checks if not check.gate)
    mean = sum(check.weight * value for check, value in pairs if not check.gate) / weight if weight else 1.0
    return min(1.0, mean) * prod(value for check, value in pairs if check.gate)


def _part(check: Check, outcome: Outcome) -> dict[str, Any]:
    extra: dict[str, Any] = {"gate": True} if check.gate else {"weight": check.weight} if check.weight != 1 else {}
    return {"check": kind_of(type(check)), "value": outcome.value, "reason": outcome.reason, **extra}


def _parse(check: Any, where: str) -> Check:
    if not isinstance(check, (str, Mapping)):
        raise DataError(f"a check is an object with a kind, not {check!r}", where=where)
    fields: dict[str, Any] = {"kind": check} if isinstance(check, str) else dict(check)
    if "kind" not in fields:
        raise DataError("a check without a kind", where=where, hint='write {"kind": "number", "value": 42}, say')
    try:
        cls = find("check", str(fields["kind"]))
    except StudyError as error:
        raise DataError(error.message, where=f"{where}.kind", hint=error.hint) from None
    try:
        parsed = cls.model_validate(fields)
    except ValidationError as error:
        raise _located(error, fields, where) from None
    assert isinstance(parsed, Check)
    return parsed


def _class_at(fields: Any, path: tuple[int | str, ...]) -> type[Check]:
    """The class of the check at a place inside another: `all_of` and `any_of` nest."""
    for step in path:
        fields = fields[step]
    return cast("type[Check]", find("check", fields if isinstance(fields, str) else fields["kind"]))


def _located(error: ValidationError, fields: Mapping[str, Any], where: str) -> DataError:
    """The first complaint of pydantic, with its place and, for an unknown field, the nearest known one."""
    first = error.errors(include_url=False)[0]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"] if step not in _BRANCHES)
    if first["type"] == "extra_forbidden":
        known = _class_at(fields, first["loc"][:-1]).model_fields
        return DataError("no such field", where=where + path, hint=nearest(str(first["loc"][-1]), list(known)))
    return DataError(first["msg"].removeprefix("Value error, "), where=where + path)
