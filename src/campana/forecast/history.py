"""History: what finished stages of this machine took, against what was predicted of them and against their operations.

    history = History(store, index, calibration_name)
    history.correction("tune", "seconds")      # 1.08: they took 8% more than the uncorrected prediction, in the median

It owns how the past bends a prediction: by one ratio a kind, the median of the newest stages, once there are enough of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any, Literal

from campana.core.index import Index
from campana.core.manifest import Manifest, machine_facts
from campana.core.spec import Expected
from campana.core.store import Store
from campana.errors import CampanaError

MOST_READ = 100
"""Manifests of a kind that are read, the newest."""
ENOUGH = 3
"""Ratios from which on a median is trusted."""
LIMITS = (0.25, 4.0)
"""A correction stays within these: what lies outside is a fault of the prediction, not of the day."""

Quantity = Literal["seconds", "memory_bytes"]


class History:
    """Of one store."""

    def __init__(self, store: Store, index: Index, calibration: str) -> None:
        self._store = store
        self._index = index
        self._calibration = calibration
        self._read: dict[str, list[Manifest]] = {}
        self._corrections: dict[tuple[str, Quantity], float] = {}

    def correction(self, kind: str, quantity: Quantity) -> float:
        """Actual / uncorrected prediction, the median of the newest stages of the kind that this calibration predicted; 1: too few."""
        if (kind, quantity) not in self._corrections:
            ratios = list(self._ratios(kind, quantity))
            found = statistics.median(ratios) if len(ratios) >= ENOUGH else 1.0
            self._corrections[kind, quantity] = min(max(found, LIMITS[0]), LIMITS[1])
        return self._corrections[kind, quantity]

    def corrected(self, kind: str, seconds: float, memory_bytes: int, disk_bytes: int | None) -> Expected:
        """An uncorrected prediction, as the past bends it."""
        faster, smaller = self.correction(kind, "seconds"), self.correction(kind, "memory_bytes")
        return Expected(seconds * faster, round(memory_bytes * smaller), disk_bytes, seconds_factor=faster, memory_factor=smaller)

    def _ratios(self, kind: str, quantity: Quantity) -> Iterator[float]:
        for manifest in self.finished(kind):
            told = manifest.execution.get("expected") or {}
            actual = actual_of(manifest, quantity)
            if actual and told.get(quantity) and told.get("calibration") == self._calibration:
                factor = told.get("seconds_factor" if quantity == "seconds" else "memory_factor") or 1.0
                yield actual * factor / told[quantity]

    def seconds(self, kind: str) -> float | None:
        """The median duration of a kind, for kinds whose work is always alike."""
        found = [manifest.seconds for manifest in self.finished(kind)]
        return statistics.median(found) if found else None

    def flops_per_second(self, kind: str, part: dict[str, Any]) -> float | None:
        """The median rate of stages of a kind whose recipes hold `part`."""
        found = [
            manifest.meter["flops"] / manifest.seconds
            for manifest in self.finished(kind)
            if manifest.meter.get("flops") and manifest.seconds > 0 and part.items() <= manifest.recipe.items()
        ]
        return statistics.median(found) if found else None

    def peak_memory_bytes(self, kind: str, part: dict[str, Any], model_key: str) -> int | None:
        """The highest peak of stages of a kind with one model whose recipes hold `part`."""
        found = [
            actual
            for manifest in self.finished(kind)
            if (actual := actual_of(manifest, "memory_bytes"))
            and part.items() <= manifest.recipe.items()
            and manifest.recipe["inputs"].get("model") == model_key
        ]
        return round(max(found)) if found else None

    def finished(self, kind: str) -> list[Manifest]:
        """The newest stages of a kind that this machine built."""
        if kind not in self._read:
            found: list[Manifest] = []
            for entry in self._index.by_kind.get(kind, [])[:MOST_READ]:
                try:
                    manifest = self._store.manifest(entry.key)
                except CampanaError:
                    continue
                if dict(manifest.machine) == machine_facts():
                    found.append(manifest)
            self._read[kind] = found
        return self._read[kind]


def actual_of(manifest: Manifest, quantity: Literal["seconds", "memory_bytes", "disk_bytes"]) -> float | None:
    """What a stage took. Seconds are those of the try that succeeded; None where a stage does not measure it."""
    if quantity == "seconds":
        return manifest.seconds
    if quantity == "disk_bytes":
        return sum(file.size for file in manifest.files.values())
    peak = manifest.meter.get("peak_memory_bytes")
    return float(peak) if isinstance(peak, (int, float)) else None
