"""The lines of the cost ledger: one a stage of the study, with the arms that use it and what it took.

Tokens and FLOPs are counted, not timed, so they are the same in every run; seconds and memory lie under `measured`. Attempts that
failed or were killed are charged by their seconds; what they had done is in the next attempt's figures where it went on from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from campana.core.spec import Stage
from campana.outcome.shelf import Shelf
from campana.parts import kind_of
from campana.report.ledger import WORKING
from campana.study import Arm, Study

PART_OF_KIND = {
    "model": "model",
    "prepare": "data",
    "select": "search",
    "tune": "tuning",
    "read_train": "tuning",
    "generate": "generation",
    "read_answer": "generation",
    "check": "checking",
    "read_check": "checking",
    "measure": "measuring",
}


def stages_of(study: Study) -> dict[str, tuple[Stage, str, list[str]]]:
    """Key -> the stage, the part of the cost that it is, and the arms that use it; inputs come before what needs them."""
    found: dict[str, tuple[Stage, str, list[str]]] = {}
    for arm in study.arms:
        for stage, part in _stages(arm):
            arms = found.setdefault(stage.key, (stage, part, []))[2]
            if arm.name not in arms:
                arms.append(arm.name)
    found[study.measure.key] = (study.measure, "measuring", [arm.name for arm in study.arms])
    order = list(dict.fromkeys(PART_OF_KIND.values()))
    return dict(sorted(found.items(), key=lambda entry: order.index(entry[1][1])))


def _stages(arm: Arm) -> list[tuple[Stage, str]]:
    stages = arm.stages
    listed = [(stages.model, "model")]
    if stages.prepare is not None:
        listed.append((stages.prepare, "data"))
    listed += [(trial, "search") for trial in stages.trials]
    if stages.select is not None:
        listed.append((stages.select, "search"))
    for by_seed in (stages.first, stages.tune, stages.generate, stages.check):
        listed += [(stage, PART_OF_KIND[kind_of(type(stage.spec))]) for stage in by_seed.values()]
    return listed


def cost_lines(study: Study, shelf: Shelf) -> list[dict[str, Any]]:
    """The lines, as `campana.report.ledger` takes them."""
    return [_line(stage, part, arms, shelf) for stage, part, arms in stages_of(study).values()]


def _line(stage: Stage, part: str, arms: list[str], shelf: Shelf) -> dict[str, Any]:
    kind = kind_of(type(stage.spec))
    manifest = shelf.manifest(stage)
    meter: Mapping[str, Any] = shelf.meter(stage)
    wasted = shelf.wasted(stage)
    failed_seconds = sum(attempt.seconds for attempt in wasted)
    phases = meter.get("seconds")
    return {
        "key": stage.key,
        "label": stage.label,
        "kind": kind,
        "part": part,
        "arms": arms,
        "built": manifest is not None,
        **{name: meter.get(name) if kind in WORKING else None for name in ("tokens", "supervised_tokens", "flops")},
        "measured": {
            "seconds": (0.0 if manifest is None else manifest.seconds) + failed_seconds,
            "failed_seconds": failed_seconds,
            "num_failed": len(wasted),
            "training_seconds": phases.get("train") if isinstance(phases, Mapping) else None,
            "peak_memory_bytes": meter.get("peak_memory_bytes"),
            "energy_joules": meter.get("energy_joules"),
        },
    }
