"""Score a folder of answers by the checks of their suite: the work of the `check` stage.

Refuses: an answer to no item of the suite, two answers to one item, an item that was asked and has no answer, an answer
with too few turns, and a check that is not one. It says so before it scores anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from campana.checks._item import parse_checks, score_item
from campana.checks._protocol import Check
from campana.errors import DataError
from campana.records import Answer, Item, Score, read_jsonl, write_jsonl


def score_answers(
    *,
    suite_path: Path,
    suite_format: Literal["campana", "belle"],
    answers_dir: Path,
    default: Check | None,
    out_dir: Path,
) -> dict[str, Any]:
    """Write `scores.jsonl` (campana.score/1) in the order of the suite, one row an answer.

    `default` scores the items that name no check. Items that were not asked are left out. Returns the meter: how many
    items were scored and unscored, answers cut at the most tokens, outcomes by kind of check, and the reasons for unscored.
    """
    from campana.data.suites import choose_items, read_suite

    items = read_suite(suite_path, suite_format)
    checks = {item.id: parse_checks(item) or ((default,) if default else ()) for item in items}
    answers = _answers_by_item(answers_dir / "answers.jsonl", {item.id: item for item in items})
    # Which items were asked follows from how many: `generate` chooses so many of the suite in one way only.
    for item in choose_items(items, len(answers)):
        if item.id not in answers:
            raise DataError(
                "asked, and not answered", where=f"item {item.id!r}", hint="answer the suite again: rows of answers.jsonl are lost"
            )
    scores = [score_item(item, answers[item.id], checks[item.id]) for item in items if item.id in answers]
    write_jsonl(out_dir / "scores.jsonl", scores)
    return _meter(scores, answers)


def _answers_by_item(path: Path, items: Mapping[str, Item]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for answer in read_jsonl(path, Answer):
        where = f"{path.name}, item {answer.item_id!r}"
        if answer.item_id not in items:
            raise DataError("an answer to an item that the suite does not hold", where=where, hint="were they made from another suite?")
        if answer.item_id in answers:
            raise DataError("two answers to one item", where=where)
        asked = sum(message["role"] == "user" for message in items[answer.item_id].messages)
        if len(answer.turns) != asked:
            raise DataError(f"{asked} turns were asked and {len(answer.turns)} answered", where=where)
        answers[answer.item_id] = answer
    if not answers:
        raise DataError("no answers", where=path.name)
    return answers


def _meter(scores: list[Score], answers: Mapping[str, Answer]) -> dict[str, Any]:
    by_check: dict[str, Counter[str]] = {}
    for score in scores:
        for part in score.parts:
            by_check.setdefault(part["check"], Counter())["unscored" if part["value"] is None else "scored"] += 1
    return {
        "num_items": len(scores),
        "num_scored": sum(score.value is not None for score in scores),
        "num_unscored": sum(score.value is None for score in scores),
        "num_cut": sum(answer.finish == "length" for answer in answers.values()),
        "checks": {kind: {"scored": counts["scored"], "unscored": counts["unscored"]} for kind, counts in sorted(by_check.items())},
        "unscored": dict(Counter(score.reason for score in scores if score.value is None)),
    }
