"""How fast and how big tuning is here: a few steps of `tuning.job.tune` on a stage's own rows, and the profile fitted to them.

    profile = tune_profile(spec, shape, model_dir, data_dir, out_dir, cache_dir, step_seconds)

It owns how long that measurement is. Two sizes of packs tell the time a pack from the time an operation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from campana.data.packing import plan_steps
from campana.errors import StageFailed
from campana.forecast.children import Others, in_child, line
from campana.forecast.known import packs_are_several
from campana.forecast.packs import RowLengths, step_packs
from campana.forecast.profile import TuneProfile, counted_tuning_bytes, forward_pack_flops, pack_flops, validation_seconds
from campana.models.cost import num_trainable
from campana.models.shape import Shape

STEP_TOKENS = 224
"""Most tokens of a measured step."""
LARGE_SHARE = 0.65
"""Of a step's tokens, the most in a pack, where steps are made of several: a full one is two packs."""
EPOCH_STEPS, EPOCHS = 1.4, 4
"""Rows for so many steps, learned so often. What is left of each epoch is a small step; the first step is taken apart, because it takes
memory for the first time: its optimiser does so as well, and is over when the next pack is told of."""
SEVERAL_EPOCH_STEPS, SEVERAL_EPOCHS = 1.25, 3
"""The same where a step is several packs. They are even, so here too it is the small step's pack that is of another size."""
LONG_ROWS = 4
"""Measured where all are longer than a pack."""
VALIDATION_TOKENS = 128


def optimizer_seconds() -> float:
    """Of clipping and one AdamW step, a parameter that learns."""
    import torch

    from campana.tuning import machine

    machine.keep_memory()
    parameters = [torch.nn.Parameter(torch.zeros(1 << 20)) for _ in range(24)]
    optimizer = torch.optim.AdamW(parameters, lr=1e-9, fused=True)
    best = float("inf")
    for _ in range(5):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 1e-3)
        start = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        best = min(best, time.perf_counter() - start)
    return best / sum(parameter.numel() for parameter in parameters)


def tune_profile(
    spec: Any, shape: Shape, model_dir: Path, data_dir: Path, out_dir: Path, cache_dir: Path, step_seconds: float
) -> TuneProfile:
    """Run a few steps of a `tune` stage on its own rows, and fit its profile. The adapter or model stays in `out_dir`."""
    batch = min(spec.batch_tokens, STEP_TOKENS)
    several = packs_are_several(spec)
    micro = max(1, min(spec.micro_batch_tokens, round(batch * LARGE_SHARE))) if several else batch
    epoch_steps, epochs = (SEVERAL_EPOCH_STEPS, SEVERAL_EPOCHS) if several else (EPOCH_STEPS, EPOCHS)
    rows_dir = out_dir.with_name(out_dir.name + "-rows")
    train, held_out = _few_rows(data_dir, rows_dir, micro, round(batch * epoch_steps))
    others = Others()
    found = in_child(run_tune, out_dir.with_suffix(".json"), spec, model_dir, rows_dir, out_dir, cache_dir, batch, micro, epochs)
    busy = others.share()
    steps = plan_steps(train.lengths, batch, epochs, 0)
    calls = found["told"]
    alone = len(calls) == sum(map(len, steps)) and len(calls) != sum(len(step_packs(train, members, micro)) for members in steps)
    packs = [each for members in steps for each in step_packs(train, members, micro, alone=alone)]
    learning = num_trainable(shape, spec.method)
    num_first = len(step_packs(train, steps[0], micro, alone=alone)) + 1  # the first optimiser step ends in the next span
    spans = np.diff([found["began"], *calls]) if len(calls) == len(packs) else np.zeros(0)
    if len(spans) <= num_first:
        raise StageFailed("too few steps were measured")
    spans = spans * (1 - busy) - [step_seconds * learning * each.opens_step * (number > 0) for number, each in enumerate(packs)]
    work = [pack_flops(each, shape, spec.method) for each in packs]
    pack_seconds, flop_seconds, first_seconds = fitted(spans.tolist(), work, num_first)
    largest = max(each.tokens for each in packs)
    validation = step_packs(held_out, range(len(held_out)), micro, alone=alone)
    validated = validation_seconds(len(validation), sum(forward_pack_flops(each, shape) for each in validation), pack_seconds, flop_seconds)
    counted = counted_tuning_bytes(largest, shape, spec.method, spec.precision, several=several, compiled=found["compiled"])
    seconds = {phase: spent * (1 - busy) for phase, spent in found["seconds"].items()}
    return TuneProfile(
        load_seconds=seconds["load"],
        other_seconds=max(0.0, found["wall"] - sum(found["seconds"].values())) * (1 - busy),
        first_seconds=max(0.0, first_seconds - validated),
        pack_seconds=pack_seconds,
        flop_seconds=flop_seconds,
        step_seconds=step_seconds,
        export_seconds=seconds.get("export", 0.0),
        memory_offset_bytes=found["peak_memory_bytes"] - counted,
        compiled=found["compiled"],
        alone=alone,
        busy=busy,
    )


def fitted(spans: Sequence[float], work: Sequence[int], num_first: int) -> tuple[float, float, float]:
    """(seconds a pack, seconds an operation, what the first packs took more), from each pack's seconds and operations."""
    pack_seconds, flop_seconds = line(work[num_first:], spans[num_first:])
    expected = num_first * pack_seconds + sum(work[:num_first]) * flop_seconds
    return pack_seconds, flop_seconds, max(0.0, sum(spans[:num_first]) - expected)


def _few_rows(data_dir: Path, out_dir: Path, micro: int, train_tokens: int) -> tuple[RowLengths, RowLengths]:
    """Rows for the measured steps, taken evenly from the stage's own, none above a pack; and a few held-out ones."""
    from campana.data.prepared import PreparedRows, RowWriter

    out_dir.mkdir(parents=True)
    found: list[RowLengths] = []
    for name, tokens in (("train", train_tokens), ("validation", VALIDATION_TOKENS)):
        rows = PreparedRows.open(data_dir / f"{name}.arrow")
        chosen, total = [], 0
        fitting = [index for index in range(len(rows)) if rows.lengths[index] <= micro] or list(range(min(len(rows), LONG_ROWS)))
        wanted = max(1, round(tokens / max(1.0, float(np.mean(rows.lengths[fitting]))))) if fitting else 0
        order = [fitting[k * len(fitting) // wanted] for k in range(wanted)]  # more than there are: some twice
        for index in order:
            chosen.append(index)
            total += int(rows.lengths[index])
        with RowWriter(out_dir / f"{name}.arrow") as writer:
            picked = [rows.row(index) for index in chosen]
            columns = {
                "ids": [ids.tolist() for ids, _ in picked],
                "supervised": [supervised.tolist() for _, supervised in picked],
                "num_supervised": [int(supervised.sum()) for _, supervised in picked],
                "source": ["probe"] * len(picked),
            }
            writer.write(columns)
        found.append(RowLengths.open(out_dir / f"{name}.arrow"))
    return found[0], found[1]


def run_tune(
    spec: Any, model_dir: Path, data_dir: Path, out_dir: Path, cache_dir: Path, batch: int, micro: int, epochs: float
) -> dict[str, Any]:
    """A short run of the trainer: when its first validation began and each pack was done, phases, peak."""
    import torch

    from campana.tuning.job import TuneJob, tune

    told: list[float] = []
    job = TuneJob(
        model_dir=model_dir,
        data_dir=data_dir,
        out_dir=out_dir,
        scratch_dir=out_dir.with_name(out_dir.name + "-scratch"),
        method=spec.method,
        learning_rate=1e-6,
        epochs=epochs,
        batch_tokens=batch,
        schedule=spec.schedule,
        optimizer=spec.optimizer,
        max_grad_norm=spec.max_grad_norm,
        precision=spec.precision,
        seed=0,
        budget=1.0,
        export=True,
        num_evaluations=1,
        micro_batch_tokens=micro,
        checkpoint_seconds=math.inf,
        cache_dir=cache_dir,
    )
    start = time.perf_counter()
    meter = tune(job, lambda *_, **__: told.append(time.perf_counter()))
    wall = time.perf_counter() - start
    seconds: Mapping[str, float] = meter["seconds"]
    began = min(start + seconds["load"], told[0])
    compiled = "not_compiled" not in meter and not torch.cuda.is_available()
    peak = meter["peak_memory_bytes"]
    return {"told": told, "began": began, "seconds": seconds, "wall": wall, "peak_memory_bytes": peak, "compiled": compiled}
