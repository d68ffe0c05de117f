"""Predicted against actual: what each built stage was expected to take before it ran, beside what it took.

All of it is measured: two runs of one study differ in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from campana.core.manifest import Manifest
from campana.core.spec import Stage
from campana.forecast.history import actual_of
from campana.outcome.shelf import Shelf
from campana.parts import kind_of

QUANTITIES = ("seconds", "memory_bytes", "disk_bytes")


def predicted_against_actual(stages: Iterable[Stage], shelf: Shelf) -> dict[str, Any] | None:
    """{"stages": one a built stage with a prediction, "kinds": ratios of predicted to actual by kind}; None: there was none."""
    listed = [line for stage in stages if (manifest := shelf.manifest(stage)) and (line := _line(stage, manifest)) is not None]
    if not listed:
        return None
    kinds = {kind: summary([line for line in listed if line["kind"] == kind]) for kind in dict.fromkeys(line["kind"] for line in listed)}
    return {"stages": listed, "kinds": kinds}


def _line(stage: Stage, manifest: Manifest) -> dict[str, Any] | None:
    expected = manifest.execution.get("expected")
    if not isinstance(expected, Mapping):
        return None
    line: dict[str, Any] = {"key": stage.key, "label": stage.label, "kind": kind_of(type(stage.spec))}
    for name in QUANTITIES:
        predicted, actual = expected.get(name), actual_of(manifest, name)
        ratio = predicted / actual if predicted is not None and actual else None
        line[name] = {"predicted": predicted, "actual": actual, "ratio": ratio}
    return line


def summary(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each quantity: how many ratios, their median, and the one furthest from 1; None where there are none."""
    listed = list(lines)
    found: dict[str, Any] = {"num_stages": len(listed)}
    for name in QUANTITIES:
        ratios = [line[name]["ratio"] for line in listed if line[name]["ratio"]]
        worst = max(ratios, key=lambda ratio: max(ratio, 1 / ratio), default=None)
        found[name] = {"count": len(ratios), "median": statistics.median(ratios) if ratios else None, "worst": worst}
    return found
