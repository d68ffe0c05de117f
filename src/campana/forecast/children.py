"""A measurement in a process of its own, what others took of the machine meanwhile, and the line through its points.

    others = Others()
    found = in_child(run_tune, folder / "tune.json", spec, model_dir, ...)
    busy = others.share()

It owns how a measurement is kept apart: its peak of memory is its own, and no thread is ever forked.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from campana.core.machine import this_machine
from campana.errors import CampanaError, StageFailed
from campana.executors.local import can_prefork


def in_child(work: Callable[..., Any], result_path: Path, *arguments: Any) -> Any:
    """Run a function in a process of its own and return its JSON. StageFailed: it ended without one."""
    result_path.unlink(missing_ok=True)
    forked = multiprocessing.get_context("fork") if can_prefork() else multiprocessing.get_context("spawn")
    child = forked.Process(target=_run, args=(work, result_path, arguments))
    child.start()
    child.join()
    if not result_path.is_file():
        raise StageFailed(f"the measurement ended with code {child.exitcode} and without a result")
    found = json.loads(result_path.read_text(encoding="utf-8"))
    if "error" in found:
        raise StageFailed(found["error"])
    return found["value"]


def _run(work: Callable[..., Any], result_path: Path, arguments: Sequence[Any]) -> None:
    try:
        text = json.dumps({"value": work(*arguments)})
    except CampanaError as error:
        text = json.dumps({"error": f"{error.message} ({error.hint})" if error.hint else error.message})
    except Exception as error:  # told to the parent, in words
        text = json.dumps({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
    partial = result_path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(result_path)


class Others:
    """How much of the machine other processes took while something was measured.

    others = Others()
    ...
    others.share()      # 0.4 of all cores since then, without this process and its ended children
    """

    def __init__(self) -> None:
        self._busy, self._own, self._start = *_cpu_seconds(), time.perf_counter()

    def share(self) -> float:
        """0 .. 0.9. 0 where it cannot be told: a container sees its host's times."""
        import psutil

        cores = this_machine().cores
        if psutil.cpu_count() != cores:
            return 0.0
        busy, own = _cpu_seconds()
        wall = max(1e-3, time.perf_counter() - self._start)
        return min(0.9, max(0.0, (busy - self._busy - (own - self._own)) / (wall * cores)))


def _cpu_seconds() -> tuple[float, float]:
    """Of all processes, and of this one with its ended children."""
    import psutil

    whole: Any = psutil.cpu_times()
    own = os.times()
    idle = whole.idle + getattr(whole, "iowait", 0.0)
    used = sum(whole[:8]) - idle if len(whole) >= 8 else whole.user + whole.system
    return used, own.user + own.system + own.children_user + own.children_system


def silent(*_: object, **__: object) -> None:
    """A stage's progress, told to nobody."""


def line(amounts: Sequence[float], times: Sequence[float]) -> tuple[float, float]:
    """(seconds each, seconds an amount), neither below zero, of least absolute relative error: one slow measurement moves nothing."""
    from scipy.optimize import linprog

    count = len(amounts)
    weights = 1 / np.maximum(np.asarray(times, np.float64), 1e-9)
    scale = max(float(np.max(amounts)), 1.0)
    design = np.stack([weights, np.asarray(amounts, np.float64) / scale * weights], axis=1)
    errors = np.eye(count)
    bounds = np.block([[design, -errors], [-design, -errors]])  # errors >= |design @ (fixed, slope) - 1|
    found = linprog([0, 0, *[1] * count], A_ub=bounds, b_ub=[*[1] * count, *[-1] * count])  # all variables are at least 0
    fixed, slope = found.x[:2]
    return float(fixed), float(slope) / scale
