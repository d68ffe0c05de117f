"""Gathering: a study and its store -> the report's dict."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from campana.core.spec import Source, Stage
from campana.outcome import tuning
from campana.outcome.forecast import predicted_against_actual
from campana.outcome.interim import interim_scores
from campana.outcome.items import format_of, gather_items, suite_of
from campana.outcome.ledger import cost_lines, stages_of
from campana.outcome.reading import reading_results
from campana.outcome.shelf import Shelf
from campana.outcome.warnings import warnings, warnings_of_this_run
from campana.parts import kind_of
from campana.report.answer import answer
from campana.report.fairness import compare
from campana.report.ledger import ledger
from campana.stats.pareto import pareto_front
from campana.study import Arm, Study

if TYPE_CHECKING:
    from campana.core.store import Store

FIGURES = {
    "model": "the base model's weights and tokenizer",
    "prepare": "the data report: rows read, kept, dropped and used",
    "select": "the learning rate that was chosen",
    "tune": "training and held-out losses, tokens, FLOPs",
    "read_train": "training and held-out losses, tokens, FLOPs; the fitted threshold",
    "generate": "answers, and whether they were cut",
    "read_answer": "answers, margins, and figures at each threshold",
    "check": "scores and their reasons",
    "read_check": "scores and their reasons",
    "measure": "means, intervals, differences, verdicts",
}
"""What of the report comes out of a kind of stage; the ledger's figures come from every stage's manifest."""


def gather(study: Study, store: Store) -> dict[str, Any]:
    """Everything the report shows, as `campana.report/1`.

    Two runs of one study give equal dicts once `campana.report.compare.without_measured` has been over them. A stage's file that
    cannot be read is a StoreError.
    """
    shelf = Shelf(store)
    stages = stages_of(study)
    measure = shelf.json(study.measure, "measure.json")
    items = gather_items(study, shelf)
    shorts = short_names(study.arms)
    scores = interim_scores(study, store, shelf) if measure is None else measure["arms"]
    arms = [_arm(arm, shorts[arm.name], scores.get(arm.name), items, shelf) for arm in study.arms]
    prices = None if study.file.prices is None else study.file.prices.model_dump(mode="json")
    costs = ledger(cost_lines(study, shelf), [arm.name for arm in study.arms], prices)
    missing = [_missing(stage, used_by, shelf) for stage, _, used_by in stages.values() if not shelf.built(stage)]
    fairness = _fairness(study)
    data = _data_reports(study, shelf)
    return {
        "schema": "campana.report/1",
        "study": _study(study, prices),
        "answer": answer(measure, costs, arms, (len(stages) - len(missing), len(stages))),
        "arms": arms,
        "measure": measure,
        "costs": costs,
        "pareto": _pareto(arms if measure is not None else [], costs),
        "reading": reading_results(study, shelf),
        "curves": [curve for arm in study.arms for curve in tuning.curves(arm, shelf)],
        "data": data,
        "fairness": fairness,
        "provenance": [_provenance(study, stage, used_by, shelf) for stage, _, used_by in stages.values()],
        "items": items,
        "missing": missing,
        "warnings": warnings(arms, study.file.seeds, len(missing), fairness, data),
        "measured": {
            "machines": _machines([stage for stage, _, _ in stages.values()], shelf),
            "study_path": _path(study),
            "warnings": warnings_of_this_run(arms, costs),
            "forecast": predicted_against_actual([stage for stage, _, _ in stages.values()], shelf),
        },
    }


def short_names(arms: Sequence[Arm]) -> dict[str, str]:
    """Arm -> its levels alone ("lora · 4k"), where that is no other arm's name; else its full name."""
    shorts = {arm.name: " · ".join(arm.levels.values()) if arm.levels and not arm.baseline else arm.name for arm in arms}
    taken = list(shorts.values())
    return {name: short if taken.count(short) == 1 else name for name, short in shorts.items()}


def _path(study: Study) -> str:
    return "STUDY" if study.path is None else str(study.path)


def _study(study: Study, prices: Mapping[str, Any] | None) -> dict[str, Any]:
    file = study.file
    source, spec = suite_of(study)
    text = study.path.read_bytes() if study.path is not None else file.model_dump_json().encode()
    return {
        "name": study.name,
        "question": file.question,
        "digest": "sha256:" + hashlib.sha256(text).hexdigest(),
        "seeds": list(file.seeds),
        "primary": {"measure": file.primary.measure, "contrast": list(file.primary.contrast)},
        "factors": {factor: list(levels) for factor, levels in file.factors.items()},
        "baselines": list(file.baselines),
        "average": file.measure.average,
        "confidence": file.measure.confidence,
        "margin": file.measure.margin,
        "prices": prices,
        "suite": {"digest": source.digest, "format": format_of(spec)},
    }


def _arm(arm: Arm, short: str, found: Mapping[str, Any] | None, items: Sequence[Mapping[str, Any]], shelf: Shelf) -> dict[str, Any]:
    answers = [entry for item in items for entry in item["answers"].get(arm.name, [])]
    runs = tuning.runs(arm, shelf)
    return {
        "name": arm.name,
        "short": short,
        "levels": dict(arm.levels),
        "baseline": arm.baseline,
        "recipe": dict(arm.recipe),
        "score": None if found is None else found["score"],
        "micro": None if found is None else found["micro"],
        "macro": None if found is None else found["macro"],
        "learning_rate": tuning.learning_rate(arm, shelf),
        "runs": runs,
        "num_answers": len(answers),
        "num_cut": sum(entry["finish"] == "length" for entry in answers),
        "num_unscored": sum(entry["score"] is None for entry in answers if entry["checked"]),
        "stages": [stage.key for stage in _arm_stages(arm)],
    }


def _arm_stages(arm: Arm) -> list[Stage]:
    stages = arm.stages
    listed = [stages.model, stages.prepare, *stages.trials, stages.select]
    listed += [*stages.first.values(), *stages.tune.values(), *stages.generate.values(), *stages.check.values()]
    return list({stage.key: stage for stage in listed if stage is not None}.values())


def _missing(stage: Stage, arms: list[str], shelf: Shelf) -> dict[str, Any]:
    failures = shelf.wasted(stage)
    return {
        "kind": kind_of(type(stage.spec)),
        "label": stage.label,
        "key": stage.key,
        "arms": arms,
        "measured": {
            "num_failed": len(failures),
            "last": {"outcome": failures[-1].outcome, "error": failures[-1].error} if failures else None,
        },
    }


def _pareto(arms: Sequence[Mapping[str, Any]], costs: Mapping[str, Any]) -> dict[str, Any]:
    """Score against the cost of tuning, search included. No arm has a score here until all is built: a front is of whole costs."""
    scores: dict[str, float | None] = dict.fromkeys(costs["arms"])
    scores |= {arm["name"]: arm["score"]["mean"] for arm in arms if arm["score"] is not None}
    making = {name: charged["making"] for name, charged in costs["arms"].items()}

    def axis(amounts: Mapping[str, Any]) -> dict[str, Any]:
        on_front = pareto_front([scores[name] for name in amounts], list(amounts.values()))
        names = [name for name, on in zip(amounts, on_front, strict=True) if on]
        return {"costs": dict(amounts), "front": sorted(names, key=lambda name: (amounts[name], name))}

    counted = {unit: axis({name: amount[unit] for name, amount in making.items()}) for unit in ("flops", "supervised_tokens")}
    timed = {unit: axis({name: amount["measured"][unit] for name, amount in making.items()}) for unit in ("seconds", "money")}
    return {
        "scores": scores,
        **counted,
        "measured": {unit: found for unit, found in timed.items() if any(cost is not None for cost in found["costs"].values())},
    }


def _data_reports(study: Study, shelf: Shelf) -> list[dict[str, Any]]:
    """One a distinct `prepare` stage that is built."""
    found: dict[str, dict[str, Any]] = {}
    for arm in study.arms:
        prepare = arm.stages.prepare
        if prepare is None or not shelf.built(prepare):
            continue
        entry = found.setdefault(
            prepare.key,
            {
                "key": prepare.key,
                "label": prepare.label,
                "arms": [],
                "names": dict(arm.stages.data_names),
                "report": shelf.json(prepare, "data_report.json"),
            },
        )
        entry["arms"].append(arm.name)
    return list(found.values())


def _fairness(study: Study) -> dict[str, Any]:
    declared = {factor: sorted({path for fields in levels.values() for path in fields}) for factor, levels in study.file.factors.items()}
    compared = compare(
        {arm.name: arm.recipe for arm in study.arms},
        {arm.name: arm.levels for arm in study.arms},
        declared,
        [arm.name for arm in study.arms if arm.baseline],
    )
    inputs: dict[str, dict[str, str]] = {}
    for arm in study.arms:
        used: dict[str, Stage | Source] = {"model": arm.stages.model}
        generate = next(iter(arm.stages.generate.values()))
        used["suite"] = generate.inputs["suite"]
        if arm.stages.prepare is not None:
            used["data"] = arm.stages.prepare
        for train in list(arm.stages.tune.values())[:1]:
            used |= {name: train.inputs[name] for name in ("train", "held_out", "made") if name in train.inputs}
        for name, value in used.items():
            inputs.setdefault(name, {})[arm.name] = value.digest if isinstance(value, Source) else value.key
    return {"declared": declared, **compared, "inputs": inputs}


def _provenance(study: Study, stage: Stage, arms: list[str], shelf: Shelf) -> dict[str, Any]:
    manifest = shelf.manifest(stage)
    name = "STUDY" if study.path is None else study.path.name
    measured: dict[str, Any] = {"command": f"campana why {shlex.quote(_path(study))} {stage.key[:12]}"}
    if manifest is not None:
        measured |= {"seconds": manifest.seconds, "created": manifest.created}
    return {
        "id": "stage-" + stage.key[:12],
        "kind": kind_of(type(stage.spec)),
        "label": stage.label,
        "key": stage.key,
        "arms": arms,
        "built": manifest is not None,
        "figures": FIGURES[kind_of(type(stage.spec))],
        "command": f"campana why {shlex.quote(name)} {stage.key[:12]}",
        "measured": measured,
    }


def _machines(stages: Sequence[Stage], shelf: Shelf) -> list[Any]:
    """The distinct machines that built the stages."""
    found: list[Any] = []
    for stage in stages:
        manifest = shelf.manifest(stage)
        if manifest is not None and dict(manifest.machine) not in found:
            found.append(dict(manifest.machine))
    return found
