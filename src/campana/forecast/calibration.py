"""Calibrations: the profiles of one machine, in the cache folder. And facts of models and data that hold on every machine.

    calibration = Calibration.load(cache_dir)
    profile = calibration.tune_profile(name)         # None: not measured yet

    forecast/<machine>.json         profiles: this processor, these cores, this torch, this code of the trainer and the engines
    forecast/facts/<name>.json      a model's configuration, the lengths of prepared rows, of prompts and of answers

It owns these files. They are a cache: what cannot be read counts as not there, and what cannot be written only costs time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from campana.core.machine import this_machine
from campana.forecast.profile import AnswerProfile, ReadAnswerProfile, ReadTrainProfile, TuneProfile

SCHEMA = "campana.calibration/5"
TIMED = ("campana.tuning", "campana.generation", "campana.reading", "campana.native")
"""Packages whose code a profile is of."""
BUSY = 0.15
"""Share of the machine that others may have while a profile is measured; above it, it is measured again once the machine is quiet."""


@cache
def fingerprint() -> str:
    """16 hex digits of what a duration depends on: the processor, its cores, torch, and the code that is timed."""
    return hashlib.sha256(json.dumps(machine(), sort_keys=True).encode()).hexdigest()[:16]


@cache
def machine() -> dict[str, Any]:
    """What the fingerprint is of. No names of hosts or people."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    hardware = {"system": platform.system(), "processor": _processor(), "cores": this_machine().cores}
    return {**hardware, "torch": torch, "code": _code(), "schema": SCHEMA}


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _code() -> str:
    digest = hashlib.sha256()
    for package in TIMED:
        with contextlib.suppress(OSError, ModuleNotFoundError):
            for path in sorted(Path(str(files(package))).rglob("*")):
                if path.suffix in (".py", ".c", ".h"):
                    digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


PROFILES: dict[str, Any] = {"tune": TuneProfile, "answer": AnswerProfile, "read_train": ReadTrainProfile, "read_answer": ReadAnswerProfile}
"""Kinds of profiles: fields of `Calibration`."""


@dataclass
class Calibration:
    """The profiles of this machine, by name."""

    path: Path | None = None
    tune: dict[str, TuneProfile] = field(default_factory=dict[str, TuneProfile])
    answer: dict[str, AnswerProfile] = field(default_factory=dict[str, AnswerProfile])
    read_train: dict[str, ReadTrainProfile] = field(default_factory=dict[str, ReadTrainProfile])
    read_answer: dict[str, ReadAnswerProfile] = field(default_factory=dict[str, ReadAnswerProfile])

    @classmethod
    def load(cls, cache_dir: Path) -> Calibration:
        """What was measured on this machine; empty where nothing was."""
        path = cache_dir / "forecast" / f"{fingerprint()}.json"
        value = _read(path)
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            if value.get("schema") == SCHEMA:
                return cls(
                    path, **{kind: {name: made.from_json(each) for name, each in value[kind].items()} for kind, made in PROFILES.items()}
                )
        return cls(path)

    @property
    def name(self) -> str:
        """Which calibration a prediction was made with."""
        return fingerprint()

    def is_settled(self, kind: str, name: str) -> bool:
        """Whether a profile of a kind (a field of this class) is there and need not be measured again now."""
        found = getattr(self, kind).get(name)
        return found is not None and (found.busy <= BUSY or not self._is_quiet)

    @cached_property
    def _is_quiet(self) -> bool:
        """Whether others leave the machine alone now. Asked only where a profile was measured beside others."""
        import psutil

        return psutil.cpu_percent(interval=0.3) < 100 * BUSY

    def save(self) -> None:
        """Write it."""
        assert self.path is not None
        profiles = {kind: {name: each.as_json() for name, each in sorted(getattr(self, kind).items())} for kind in PROFILES}
        _write(self.path, {"schema": SCHEMA, "machine": machine(), **profiles})


class Facts:
    """What is known of models and data without opening them again: name -> JSON."""

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / "forecast" / "facts"
        self._known: dict[str, dict[str, Any] | None] = {}

    def get(self, name: str) -> dict[str, Any] | None:
        """A fact, or None."""
        if name not in self._known:
            self._known[name] = _read(self._path(name)) or None
        return self._known[name]

    def put(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a fact."""
        self._known[name] = dict(value)
        _write(self._path(name), value)

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _write(path: Path, value: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
        partial.replace(path)
