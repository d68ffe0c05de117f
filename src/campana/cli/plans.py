"""`campana plan` and `campana why`: what would run, and which field made it so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campana.cli.forecasts import STAGE_SCHEMA, TOTAL_SCHEMA, Forecast, warnings_text
from campana.core.digest import DigestCache, digest_path
from campana.core.graph import by_key
from campana.core.plan import Plan, PlanEntry, make_plan
from campana.core.store import Store
from campana.errors import UserError
from campana.parts import kind_of
from campana.study import Study, load_study
from campana.study.arms import flatten

if TYPE_CHECKING:
    from campana.core.spec import Stage

PLAN_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "campana.plan/1",
    "type": "object",
    "required": ["schema", "study", "store", "arms", "stages", "counts", "forecast"],
    "properties": {
        "schema": {"const": "campana.plan/1"},
        "study": {"type": "string"},
        "store": {"type": "string"},
        "arms": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "levels", "baseline", "stages"],
                "properties": {
                    "name": {"type": "string"},
                    "levels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "baseline": {"type": "boolean"},
                    "stages": {"type": "array", "items": {"type": "string"}, "description": "Keys of the arm's stages."},
                },
            },
        },
        "stages": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["key", "kind", "label", "state", "reason", "inputs", "forecast"],
                "properties": {
                    "key": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                    "kind": {"type": "string"},
                    "label": {"type": "string"},
                    "state": {"type": "string", "description": "built, build, running, or failed before."},
                    "reason": {"type": "string"},
                    "inputs": {"type": "object", "additionalProperties": {"type": "string"}},
                    "forecast": {"anyOf": [STAGE_SCHEMA, {"type": "null"}]},
                },
            },
        },
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "forecast": {"anyOf": [TOTAL_SCHEMA, {"type": "null"}]},
    },
}


@dataclass(frozen=True)
class Opened:
    """A study and the store that it is looked up in."""

    study: Study
    store: Store


def open_study(path: Path, store_path: Path, cores: int | None = None) -> Opened:
    """Load a study; the digests of its data are remembered in the store. `cores`: of a stage that could use all; None: all."""
    store = Store(store_path)
    cache = DigestCache(store.root)
    study = load_study(path, digest=lambda source: digest_path(source, cache), cores=cores)
    return Opened(study, store)


def plan_of(opened: Opened) -> Plan:
    """The plan of the study's answer."""
    return make_plan(opened.study.targets, opened.store)


def as_json(opened: Opened, plan: Plan, told: Forecast) -> dict[str, Any]:
    """The plan as `campana.plan/1`."""
    return {
        "schema": "campana.plan/1",
        "study": opened.study.name,
        "store": str(opened.store.root),
        "arms": [
            {
                "name": arm.name,
                "levels": dict(arm.levels),
                "baseline": arm.baseline,
                "stages": list(by_key(arm.stages.check.values())),
            }
            for arm in opened.study.arms
        ],
        "stages": [
            {
                "key": entry.key,
                "kind": kind_of(type(entry.stage.spec)),
                "label": entry.stage.label,
                "state": str(entry.state),
                "reason": entry.reason,
                "inputs": {name: _input_key(value) for name, value in entry.stage.inputs.items()},
                "forecast": told.stage_json(entry.key),
            }
            for entry in plan.entries
        ],
        "counts": dict(Counter(str(entry.state) for entry in plan.entries)),
        "forecast": told.total_json(),
    }


def _input_key(value: Any) -> str:
    return str(value.key if hasattr(value, "key") else value.identity)


def as_text(opened: Opened, plan: Plan, told: Forecast, width: int | None = None) -> str:
    """The plan as a table: what would run, what it would take, and why. `width`: most characters of a line; None: as it comes."""
    counts = Counter(str(entry.state) for entry in plan.entries)
    arms = ", ".join(arm.name for arm in opened.study.arms)
    lines = [f"{opened.study.question}", f"arms: {arms}", f"store: {opened.store.root}"]
    wanted = [entry for entry in plan.entries if str(entry.state) != "built"]
    if wanted:
        lines += [told.headline, *warnings_text(told), "", *_table(wanted, told, width)]
    counted = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    lines += ["", f"{len(plan.entries)} stages: {counted}" + ("" if wanted else "; nothing to do")]
    return "\n".join(lines).strip()


def _table(wanted: Sequence[PlanEntry], told: Forecast, width: int | None) -> list[str]:
    rows = [("key", "state", "stage", "time", "memory", "disk", "why")]
    rows += [(entry.key[:8], str(entry.state), entry.stage.label, *told.cells(entry.key), entry.brief or entry.reason) for entry in wanted]
    sizes = [max(len(row[column]) for row in rows) for column in range(6)]
    lines: list[str] = []
    for row in rows:
        cells = [
            cell.rjust(size) if 3 <= column < 6 else cell.ljust(size) for column, (cell, size) in enumerate(zip(row, sizes, strict=False))
        ]
        line = "  " + "  ".join([*cells, row[6]])
        lines.append(line if width is None or len(line) <= width else line[: max(1, width - 3)] + "...")
    return lines


def find_stage(opened: Opened, words: str) -> Stage:
    """The one stage of the study whose key starts with the words, or whose label holds them all: `tune lora` is `tune method=lora`."""
    stages = list(by_key(opened.study.targets).values())
    found = [stage for stage in stages if stage.key.startswith(words)] if len(words) >= 4 else []
    found = found or [stage for stage in stages if stage.label == words]
    found = found or [stage for stage in stages if all(word in stage.label.split() for word in words.split())]
    found = found or [stage for stage in stages if set(words.split()) <= _said(stage.label)]
    found = found or [stage for stage in stages if words in stage.label]
    if len(found) == 1:
        return found[0]
    listed = "\n  ".join(f"{stage.key[:8]}  {stage.label}" for stage in (found or stages)[:40])
    problem = f"no stage is named {words!r}" if not found else f"{len(found)} stages fit {words!r}"
    raise UserError(problem, hint=f"give a label or the start of a key:\n  {listed}")


def _said(label: str) -> set[str]:
    """The words of a label, and its levels without their factors."""
    return {said for word in label.split() for said in (word, word.partition("=")[2])}


def why(opened: Opened, words: str) -> dict[str, Any]:
    """All that is known of one stage, `campana.why/1`: state, reason, differences, recipe, files, attempts."""
    from campana.core import why as reasons
    from campana.core.keys import recipe

    stage = find_stage(opened, words)
    told = reasons.why(stage, opened.store)
    built = opened.store.has(stage.key)
    manifest = opened.store.manifest(stage.key).as_json() if built else {}
    nearest = told.nearest
    return {
        "schema": "campana.why/1",
        "key": stage.key,
        "label": stage.label,
        "state": str(told.state),
        "reason": told.reason,
        "nearest": {"key": nearest.key, "label": nearest.label} if nearest else None,
        "differences": [{"path": each.path, "stored": _jsonable(each.left), "wanted": _jsonable(each.right)} for each in told.differences],
        "recipe": recipe(stage),
        "path": str(opened.store.path(stage.key)) if built else None,
        "manifest": manifest,
        "attempts": [asdict(attempt) for attempt in opened.store.attempts(stage.key)],
    }


def _jsonable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, list, tuple, dict)) or value is None else str(value)


def why_text(told: dict[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{told['label']}", f"  key       {told['key']}", f"  state     {told['state']}", f"  reason    {told['reason']}"]
    if told["nearest"]:
        lines.append(f"  nearest   {told['nearest']['label']} ({told['nearest']['key'][:8]})")
        lines += [f"    {each['path']}: {each['stored']!r} -> {each['wanted']!r}" for each in told["differences"]]
    for attempt in told["attempts"]:
        error = f": {attempt['error'].splitlines()[0]}" if attempt.get("error") else ""
        lines.append(f"  attempt   {attempt['outcome']} after {attempt['seconds']:.1f} s{error}")
    if told["path"]:
        lines.append(f"  files     {told['path']}")
        lines += [f"    {name}  {file['size']:,} bytes" for name, file in sorted(told["manifest"]["files"].items())]
    lines.append("  recipe")
    lines += [f"    {path}: {value}" for path, value in flatten(told["recipe"]).items()]
    return "\n".join(lines)
