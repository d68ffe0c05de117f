"""What a plan's predictions add up to, and whether the machine holds it: totals, money, and warnings that name the field to change.

totals = add_up(missing, forecasts, machine_hour=0.10)
for text in warnings(missing, forecasts, store, cache_dir): ...
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campana.core.machine import this_machine
from campana.core.spec import Expected, Stage
from campana.core.store import Store
from campana.errors import CampanaError
from campana.forecast.known import input_stage, tune_profile_name
from campana.forecast.predict import Forecaster, checkpoint_bytes
from campana.generation.engines.packed import Packed
from campana.models.cost import BYTES, generation_memory_bytes, num_trainable, training_memory_bytes
from campana.models.shape import Shape, num_parameters
from campana.native.build import BF16, FP32, lacks_bf16_units, lacks_compiler
from campana.stages.generate import Generate
from campana.stages.tune import Tune
from campana.tuning.options import AdamW


@dataclass(frozen=True)
class Totals:
    """Of all missing stages. Where some are not known, the sums are of the others: `unknown` counts those without a time."""

    seconds: float
    memory_bytes: int | None
    """The largest stage's peak."""
    disk_bytes: int
    """Of what stays in the store."""
    money: float | None
    unknown: int


def add_up(stages: Iterable[Stage], forecasts: Mapping[str, Expected], machine_hour: float | None) -> Totals:
    """The totals of the stages that are missing."""
    told = [forecasts.get(stage.key, Expected()) for stage in stages]
    seconds = sum(each.seconds or 0.0 for each in told)
    memory = max((each.memory_bytes for each in told if each.memory_bytes is not None), default=None)
    disk = sum(each.disk_bytes or 0 for each in told)
    money = None if machine_hour is None else seconds / 3600 * machine_hour
    return Totals(seconds, memory, disk, money, sum(each.seconds is None for each in told))


@dataclass(frozen=True)
class Warned:
    """What will not fit, or could be faster."""

    what: str
    """`memory`, `disk` or `time`."""
    stages: tuple[str, ...]
    """Keys."""
    text: str
    hint: str


def warnings(
    stages: Sequence[Stage],
    forecasts: Mapping[str, Expected],
    store: Store,
    cache_dir: Path,
    *,
    memory_bytes: int | None = None,
    free_bytes: int | None = None,
) -> list[Warned]:
    """What will not fit into memory (None: this machine's) or on the disk (None: what the store's has free), and what could be faster."""
    limit = this_machine().memory_bytes if memory_bytes is None else memory_bytes
    forecaster = Forecaster(store, cache_dir)
    found: dict[tuple[str, str], list[Stage]] = {}
    for stage in stages:
        told = forecasts.get(stage.key, Expected())
        memory, word = (told.memory_bytes, "about") if told.memory_bytes is not None else (_least_bytes(stage, forecaster), "at least")
        if memory > limit:
            found.setdefault((_too_large(word, memory, limit), _smaller(stage, told, limit, forecaster)), []).append(stage)
    warned = [
        Warned("memory", tuple(stage.key for stage in listed), f"{_named(listed)}: {text}", hint) for (text, hint), listed in found.items()
    ]
    free = _free_bytes(store.root) if free_bytes is None else free_bytes
    passing = max((_passing_bytes(stage, forecasts.get(stage.key, Expected()), forecaster) for stage in stages), default=0)
    wanted = add_up(stages, forecasts, None).disk_bytes + passing
    if wanted > free:
        text = f"{_gigabytes(wanted)} of disk are needed ({_gigabytes(passing)} of them only for a time), and {_gigabytes(free)} are free"
        hint = "free some space (`campana gc` lists what could go), or give a store on another disk: --store DIR"
        warned.append(Warned("disk", tuple(stage.key for stage in stages), text, hint))
    return warned + _slow_arithmetic(stages) + _slow_without_compiler(stages)


def _slow_arithmetic(stages: Sequence[Stage]) -> list[Warned]:
    """Stages in bf16 on a processor that has no units for it."""
    narrow = [stage for stage in stages if getattr(stage.spec, "precision", None) == "bf16"]
    if not narrow or shutil.which("nvidia-smi") is not None or not lacks_bf16_units():
        return []
    text = f"{_named(narrow)}: this processor has no units for bf16, and computes it many times as slowly as fp32"
    return [Warned("time", tuple(stage.key for stage in narrow), text, "write precision: fp32, or run it on another machine")]


def _slow_without_compiler(stages: Sequence[Stage]) -> list[Warned]:
    """Work on this machine's processor that compiled code would make quicker, were there a compiler. How much: benchmarks/NOTES.md."""
    if shutil.which("nvidia-smi") is not None:
        return []
    narrow, tuned = ([each for each in stages if isinstance(each.spec, Tune) and each.spec.precision == kind] for kind in ("bf16", "fp32"))
    answers = [stage for stage in stages if isinstance(stage.spec, Generate) and _is_packed_fp32(stage.spec)]
    warned: list[Warned] = []
    times = ((narrow, BF16, "bf16 tuning is up to 1.6"), (tuned, FP32, "tuning is up to 1.2"), (answers, FP32, "answering is up to 1.5"))
    for slow, code, what in times:
        if slow and lacks_compiler(code):
            text = f"{_named(slow)}: there is no C compiler, and on this processor {what} times as fast with compiled code"
            warned.append(Warned("time", tuple(stage.key for stage in slow), text, "install gcc (Debian: apt install gcc)"))
    return warned


def _is_packed_fp32(spec: Generate) -> bool:
    return isinstance(spec.engine, Packed) and spec.precision == "fp32"


def _least_bytes(stage: Stage, forecaster: Forecaster) -> int:
    """What weights alone take, and gradients and optimiser state where they learn: known before anything is measured. 0: not known."""
    spec, model = stage.spec, input_stage(stage, "model")
    try:
        shape = None if model is None else forecaster.known.shape(model)
        if shape is None or stage.resources.ranks > 1:
            return 0
        if isinstance(spec, Generate):
            return generation_memory_bytes(shape, 1, 1, precision=spec.precision)
        if not isinstance(spec, Tune):
            return 0
        method: Any = spec.method
        state = 8 if isinstance(spec.optimizer, AdamW) else 0
        each = BYTES[spec.precision]
        return training_memory_bytes(
            shape, method, 0, compiled=True, precision=spec.precision, frozen_bytes=each, state_bytes=state, several=False
        )
    except CampanaError:
        return 0


def _too_large(word: str, memory: int, limit: int) -> str:
    return f"needs {word} {_gigabytes(memory)} of memory, and this machine has {_gigabytes(limit)}"


def _named(listed: Sequence[Stage]) -> str:
    return listed[0].label + (f" and {len(listed) - 1} more" if len(listed) > 1 else "")


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"


def _smaller(stage: Stage, told: Expected, limit: int, forecaster: Forecaster) -> str:
    """Which field to change."""
    spec, model = stage.spec, input_stage(stage, "model")
    shape = None if model is None else forecaster.known.shape(model)
    if isinstance(spec, Generate):
        return "generate: {engine: {kind: packed, max_rows: 32}} keeps fewer answers under way; or a smaller model"
    if not isinstance(spec, Tune) or shape is None:
        return "a smaller model, or a machine with more memory"
    most = _fitting_pack(spec, shape, told, limit, forecaster)
    if most is not None and most >= 64:
        passes = forecaster.training(stage, alone=False)
        longest = 0 if passes is None else passes.longest_row
        if longest > most:
            return f"tune: {{max_length: {most // 8 * 8}}}: one row of {longest} tokens is the largest pack"
        return f"tune: {{micro_batch_tokens: {most // 64 * 64}}}: smaller passes, and the same result"
    method: Any = spec.method
    if num_trainable(shape, method) == num_parameters(shape):
        return "tune: {method: {kind: lora}} keeps no gradients and no optimiser state of the base model; or a smaller model"
    return "a smaller model, or a machine with more memory"


def _fitting_pack(spec: Tune, shape: Shape, told: Expected, limit: int, forecaster: Forecaster) -> int | None:
    profile = forecaster.calibration.tune.get(tune_profile_name(shape, spec))
    if profile is None:
        return None
    method: Any = spec.method
    return profile.largest_pack(round(limit / told.memory_factor), shape, method, spec.precision)


def _passing_bytes(stage: Stage, told: Expected, forecaster: Forecaster) -> int:
    model = input_stage(stage, "model")
    try:
        shape = None if model is None else forecaster.known.shape(model)
    except CampanaError:
        return 0
    if shape is None or not isinstance(stage.spec, Tune):
        return 0
    try:
        return checkpoint_bytes(shape, stage.spec, told.seconds)
    except CampanaError:
        if shape.exact:
            raise
        return 0  # the method adapts layers that only the model itself can name


def _free_bytes(root: Path) -> int:
    folder = root.resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
