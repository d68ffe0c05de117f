"""The prompts with every arm's answers, scores and reasons, side by side.

Seeds that share one answer (an untuned model that answers greedily) are one entry with several seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from campana.core.spec import Source, Stage
from campana.data.suites import read_suite
from campana.outcome.shelf import Shelf
from campana.reading.suite import question_items
from campana.records import Answer, Item, Score
from campana.stages.read_answer import ReadAnswer
from campana.study import Arm, Study


def suite_of(study: Study) -> tuple[Source, Any]:
    """The suite that all arms answer, and the spec of the first stage that answers it."""
    first = next(iter(study.arms[0].stages.generate.values()))
    source = first.inputs["suite"]
    assert isinstance(source, Source)
    return source, first.spec


def format_of(spec: Any) -> str:
    """How the rows of the suite read."""
    return "reading" if isinstance(spec, ReadAnswer) else str(spec.suite_format)


def items_of(study: Study) -> list[Item]:
    """All items of the suite."""
    source, spec = suite_of(study)
    if isinstance(spec, ReadAnswer):
        return question_items(source.path, None)
    return list(read_suite(source.path, spec.suite_format))


def gather_items(study: Study, shelf: Shelf) -> list[dict[str, Any]]:
    """Items in the order of the suite; those that no arm has answered are left out."""
    given = {arm.name: _answers(arm, shelf) for arm in study.arms}
    asked = {item_id for answers in given.values() for item_id in answers}
    if not asked:
        return []
    items = [item for item in items_of(study) if item.id in asked]
    return [
        {
            "id": item.id,
            "category": item.category,
            "language": item.language,
            "messages": [dict(message) for message in item.messages],
            "reference": item.reference,
            "answers": {name: answers[item.id] for name, answers in given.items() if item.id in answers},
        }
        for item in items
    ]


def _answers(arm: Arm, shelf: Shelf) -> dict[str, list[dict[str, Any]]]:
    """Item -> the arm's answers, one entry a distinct `generate` stage."""
    seeds: dict[str, list[int]] = {}
    stages: dict[str, tuple[Stage, Stage]] = {}
    for seed, generate in arm.stages.generate.items():
        seeds.setdefault(generate.key, []).append(seed)
        stages.setdefault(generate.key, (generate, arm.stages.check[seed]))
    found: dict[str, list[dict[str, Any]]] = {}
    for key, (generate, check) in stages.items():
        scores: Mapping[str, Score] = {score.item_id: score for score in shelf.rows(check, "scores.jsonl", Score)}
        for answer in shelf.rows(generate, "answers.jsonl", Answer):
            found.setdefault(answer.item_id, []).append(_entry(answer, scores.get(answer.item_id), seeds[key], shelf.built(check)))
    return found


def _entry(answer: Answer, score: Score | None, seeds: list[int], checked: bool) -> dict[str, Any]:
    return {
        "seeds": seeds,
        "turns": list(answer.turns),
        "finish": answer.finish,
        "num_completion_tokens": answer.num_completion_tokens,
        "checked": checked,
        "score": None if score is None else score.value,
        "reason": score.reason if score is not None else "no score for it" if checked else "not checked yet",
        "parts": [] if score is None else [dict(part) for part in score.parts],
    }
