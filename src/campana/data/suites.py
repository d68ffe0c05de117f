"""Evaluation suites: files of questions, read into items, whole or not at all.

    {"id": "qa-1", "category": "open qa", "language": "en", "prompt": "2+2?", "checks": [{"kind": "number", "value": 4}]}
    {"id": "chat-1", "category": "chat", "messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Bye"}]}

A suite decides scores, so nothing in it is skipped: a bad row, an unknown field or a second item of one id is an error with its line.
BELLE's evaluation set (`question`, `class`, `std_answer`) reads as well; its ids are hashes of the content.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from campana.data.files import read_rows
from campana.data.format import DroppedRow
from campana.errors import DataError
from campana.parts import nearest
from campana.records import Item

FIELDS = ("schema", "id", "category", "language", "prompt", "messages", "reference", "checks")
SuiteFormat = Literal["campana", "belle"]
"""How the rows of a suite of prompts read."""
BELLE_FIELDS = ("question", "class", "std_answer")


def read_suite(path: Path, format: SuiteFormat) -> list[Item]:  # noqa: A002  # the study file's word
    """All items of a suite, in the order of the file. Raises DataError at the first bad row."""
    items: list[Item] = []
    lines: dict[str, int] = {}
    for number, row in read_rows(path):
        where = f"{path.name}:{number}"
        if isinstance(row, DroppedRow):
            raise DataError(str(row), where=where, hint="each line of a suite is one JSON object")
        _require_utf8(row, where)
        item = _item(row, where) if format == "campana" else _belle_item(row, where)
        if item.id in lines:
            raise DataError(
                f"the id {item.id!r} is already that of line {lines[item.id]}", where=where, hint="each item needs an id of its own"
            )
        lines[item.id] = number
        items.append(item)
    if not items:
        raise DataError("a suite without items", where=str(path))
    return items


def _require_utf8(row: Mapping[str, Any], where: str) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"half a surrogate pair, {error.object[error.start]!r}: no text", where=where, hint="write the character itself, in UTF-8"
        ) from None


def category_of(name: str) -> str:
    """One name for a category however it was typed: NFKC (a no-break space becomes a space), lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def choose_items(items: Sequence[Item], max_items: int | None) -> list[Item]:
    """At most so many items, evenly over categories, in the order of the suite.

    Each category gives its next item in a hash order of ids, in turn, so a smaller choice is inside a larger one.
    """
    if max_items is None or max_items >= len(items):
        return list(items)
    groups: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest()):
        groups.setdefault(item.category, []).append(item)
    ranked = sorted((place, category, item.id) for category, group in groups.items() for place, item in enumerate(group))
    chosen = {item_id for _, _, item_id in ranked[:max_items]}
    return [item for item in items if item.id in chosen]


def prompts_digest(items: Sequence[Item], max_items: int | None) -> str:
    """`prompts:...`, of all of the chosen items that an answer can depend on: another check or reference leaves it as it is."""
    asked = [[item.id, item.messages] for item in choose_items(items, max_items)]
    return "prompts:" + hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _item(row: Mapping[str, Any], where: str) -> Item:
    for name in row:
        if name not in FIELDS:
            raise DataError(f"unknown field {name!r}", where=where, hint=nearest(str(name), FIELDS))
    if row.get("schema", Item.SCHEMA) != Item.SCHEMA:
        raise DataError(f"a row of schema {row['schema']!r}, not {Item.SCHEMA!r}", where=where)
    if ("prompt" in row) == ("messages" in row):
        raise DataError(
            "an item has either a prompt or messages", where=where, hint='"prompt": "...", or "messages": [{"role": "user", ...}]'
        )
    messages = _messages(row["messages"], where) if "messages" in row else ({"role": "user", "content": _text(row, "prompt", where)},)
    reference = row.get("reference")
    if reference is not None and not isinstance(reference, str):
        raise DataError("the reference is not a text", where=where, hint='"reference": "..." or null')
    return Item(
        id=_text(row, "id", where),
        category=category_of(_text(row, "category", where)),
        messages=messages,
        language=_text(row, "language", where) if "language" in row else "en",
        reference=reference,
        checks=_checks(row.get("checks", ()), where),
    )


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name!r} is missing or empty" if name not in row or value == "" else f"{name!r} is not a text", where=where)
    return value


def _messages(value: Any, where: str) -> tuple[dict[str, str], ...]:
    wrong = "messages are an optional system turn, then user turns"
    if not isinstance(value, list) or not value:
        raise DataError(f"no messages: {wrong}", where=where)
    for place, message in enumerate(value):
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise DataError(f"message {place} is not an object of role and content", where=where)
        if message["role"] != "user" and (message["role"] != "system" or place > 0):
            raise DataError(f"message {place} is of role {message['role']!r}: {wrong}", where=where, hint="answers go into reference")
        _text(message, "content", f"{where}, message {place}")
    if value[-1]["role"] != "user":
        raise DataError(f"no user turn: {wrong}", where=where)
    return tuple({"role": message["role"], "content": message["content"]} for message in value)


def _checks(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(check, Mapping) and isinstance(check.get("kind"), str) for check in value):
        raise DataError("checks are a list of objects with a kind", where=where, hint='"checks": [{"kind": "number", "value": 4}]')
    return tuple(dict(check) for check in value)


def _belle_item(row: Mapping[str, Any], where: str) -> Item:
    if set(row) != set(BELLE_FIELDS):
        raise DataError(
            f"fields {', '.join(map(str, row))} instead of {', '.join(BELLE_FIELDS)}", where=where, hint="suites: format: campana?"
        )
    question, category, answer = _text(row, "question", where), category_of(_text(row, "class", where)), row["std_answer"]
    if not isinstance(answer, str | None):
        raise DataError("'std_answer' is not a text", where=where)
    digest = hashlib.sha256(json.dumps([question, category, answer or ""], ensure_ascii=False).encode()).hexdigest()
    return Item(
        id=f"belle-{digest[:16]}",
        category=category,
        messages=({"role": "user", "content": question},),
        language="zh",
        reference=answer if answer and answer.strip() else None,
    )
