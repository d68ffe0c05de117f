"""What `campana plan` and `campana run` say of time, memory, disk and money before anything runs.

told = forecast(opened, plan, probe=True)       # may measure this machine for half a minute, once
told.headline                                   # "about 5 min, 3.4 GB peak, 0.9 GB of disk, 0.01 EUR on this machine"
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from campana.core.plan import Plan
from campana.core.spec import Expected
from campana.models.cache import default_cache_dir
from campana.report import quantity as q

if TYPE_CHECKING:
    from campana.cli.plans import Opened
    from campana.forecast.totals import Totals, Warned

AGAIN_SECONDS = 3600.0
"""So long after a probe that could not find everything out, the same is not tried again."""

NUMBER_OR_NULL: dict[str, Any] = {"type": ["number", "null"], "minimum": 0}
STAGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "What a stage that is not built will take; null: not known.",
    "required": ["seconds", "memory_bytes", "disk_bytes"],
    "properties": {"seconds": NUMBER_OR_NULL, "memory_bytes": NUMBER_OR_NULL, "disk_bytes": NUMBER_OR_NULL},
}
TOTAL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Of all stages that are not built.",
    "required": ["seconds", "memory_bytes", "disk_bytes", "money", "currency", "unknown", "calibration", "warnings"],
    "properties": {
        "seconds": {"type": "number", "minimum": 0, "description": "Machine time, added up."},
        "memory_bytes": {**NUMBER_OR_NULL, "description": "The largest stage's peak."},
        "disk_bytes": {"type": "number", "minimum": 0, "description": "Of what stays in the store."},
        "money": {**NUMBER_OR_NULL, "description": "Machine hours x price; null without prices."},
        "currency": {"type": ["string", "null"]},
        "unknown": {"type": "integer", "minimum": 0, "description": "Stages whose time is not known; it is not in the sum."},
        "calibration": {"type": "string", "description": "Of which machine and code: the start of a digest."},
        "warnings": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["what", "stages", "text", "hint"],
                "properties": {
                    "what": {"enum": ["memory", "disk", "time"]},
                    "stages": {"type": "array", "items": {"type": "string"}, "description": "Keys."},
                    "text": {"type": "string"},
                    "hint": {"type": "string", "description": "The field to change."},
                },
            },
        },
    },
}


@dataclass(frozen=True)
class Forecast:
    """The predictions of a plan's missing stages."""

    expected: Mapping[str, Expected] = field(default_factory=dict[str, Expected])
    """By key."""
    totals: Totals | None = None
    """None: nothing is missing."""
    warnings: tuple[Warned, ...] = ()
    currency: str | None = None

    @property
    def headline(self) -> str:
        """The totals in a line; empty where nothing is missing."""
        totals = self.totals
        if totals is None:
            return ""
        at_least = "at least " if totals.unknown else "about "
        parts = [at_least + q.duration(totals.seconds)]
        if totals.memory_bytes is not None:
            parts.append(f"{q.size(totals.memory_bytes)} peak")
        parts.append(f"{q.size(totals.disk_bytes)} of disk")
        if totals.money is not None:
            parts.append(q.money(totals.money, self.currency))
        told = ", ".join(parts) + " on this machine"
        return told + (f"; the time of {totals.unknown} stages is not known" if totals.unknown else "")

    def cells(self, key: str) -> tuple[str, str, str]:
        """Time, memory and disk of a stage; a dash where it is not known."""
        told = self.expected.get(key, Expected())
        return _about(told.seconds), q.size(told.memory_bytes), q.size(told.disk_bytes)

    def stage_json(self, key: str) -> dict[str, Any] | None:
        """As `campana.plan/1` has it."""
        told = self.expected.get(key)
        return None if told is None else {name: getattr(told, name) for name in ("seconds", "memory_bytes", "disk_bytes")}

    def total_json(self) -> dict[str, Any] | None:
        """As `campana.plan/1` has it."""
        totals = self.totals
        if totals is None:
            return None
        calibration = next((told.calibration for told in self.expected.values()), "")
        numbers = {name: getattr(totals, name) for name in ("seconds", "memory_bytes", "disk_bytes", "money", "unknown")}
        warned = [{"what": each.what, "stages": list(each.stages), "text": each.text, "hint": each.hint} for each in self.warnings]
        return {**numbers, "currency": self.currency, "calibration": calibration, "warnings": warned}


def _about(seconds: float | None) -> str:
    return q.NONE if seconds is None else q.duration(seconds if seconds >= 10 or seconds < 0.95 else round(seconds, 1))


def forecast(opened: Opened, plan: Plan, *, probe: bool) -> Forecast:
    """Predict the missing stages. `probe`: measure what is not known yet, in another process, and say so on stderr."""
    stages = [entry.stage for entry in plan.missing]
    if not stages:
        return Forecast()
    from campana.forecast import predict
    from campana.forecast.totals import add_up, warnings

    cache_dir = default_cache_dir(os.environ)
    if probe:
        _probe(opened, plan)
    expected = predict(stages, opened.store, cache_dir)
    prices = opened.study.file.prices
    totals = add_up(stages, expected, None if prices is None else prices.machine_hour)
    warned = tuple(warnings(stages, expected, opened.store, cache_dir))
    return Forecast(expected, totals, warned, None if prices is None else prices.currency)


def _probe(opened: Opened, plan: Plan) -> None:
    from campana.forecast import missing_knowledge, probe_in_subprocess
    from campana.forecast.calibration import Facts

    cache_dir = default_cache_dir(os.environ)
    stages = [entry.stage for entry in plan.missing]
    needs = missing_knowledge(stages, opened.store, cache_dir)
    if not needs or opened.study.path is None:
        return
    tried = Facts(cache_dir).get(needs.name)
    if tried is not None and time.time() - float(tried["at"]) < AGAIN_SECONDS:
        return
    sys.stderr.write(f"measuring this machine for the predictions: {needs}; kept for the next plan, --no-probe leaves it out\n")
    probe_in_subprocess(opened.study.path, opened.store.root, cache_dir)
    left = missing_knowledge(stages, opened.store, cache_dir)
    if left:
        Facts(cache_dir).put(left.name, {"at": time.time()})


def warnings_text(told: Forecast) -> list[str]:
    """A paragraph for each warning."""
    width = shutil.get_terminal_size((120, 24)).columns - 1
    lines: list[str] = []
    for each in told.warnings:
        lines += textwrap.wrap(f"{'slow' if each.what == 'time' else 'will not fit'}: {each.text}", width, subsequent_indent="  ")
        lines += textwrap.wrap(f"hint: {each.hint}", width, initial_indent="  ", subsequent_indent="    ")
    return lines
