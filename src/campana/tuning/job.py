"""One training run from folders to a folder: what `stages.tune` calls.

    meter = tune(TuneJob(model_dir=..., data_dir=..., out_dir=..., scratch_dir=..., method=Lora(), ...), progress)

Writes `metrics.jsonl` (a row an optimiser step, and validation rows), `tune.json` (campana.tune/1) and, where wanted, `model/`.
Neither file holds a time: a run that was killed and resumed writes the same bytes. Times, speed and memory are in the returned
meter. With several ranks each calls `tune` on the same job, and rank 0 writes. Refuses data without rows, rows without a supervised
token, a model whose loss it cannot reproduce, and an optimiser that cannot work on weights that are cut over ranks.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from campana.errors import DataError, ModelError, StageFailed, StudyError
from campana.models.cache import default_cache_dir
from campana.tuning.clock import Clock, matmul_flops_per_second, peak_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from campana.native.build import Unavailable
    from campana.native.compiled import Compiled
    from campana.tuning.energy import Energy
    from campana.tuning.loop import Diverged, Plan, Run, Totals
    from campana.tuning.method import Method
    from campana.tuning.options import Optimizer, Schedule
    from campana.tuning.ranks import Ranks

SCHEMA = "campana.tune/1"
COPIED = ("tokenizer", "special_tokens", "added_tokens", "chat_template", "vocab", "merges")
"""How the names of the files begin that a tuned model needs from its base, beside its weights and config."""


class Progress(Protocol):
    """`core.spec.Progress`: how far a run is."""

    def __call__(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        """`done` of `total`, in `unit`s."""
        ...


@dataclass(frozen=True)
class TuneJob:
    """A training run, resolved: the fields of `stages.tune.Tune` with folders and a number for the learning rate."""

    model_dir: Path
    data_dir: Path
    out_dir: Path
    scratch_dir: Path
    method: Method
    learning_rate: float
    epochs: float
    batch_tokens: int
    schedule: Schedule
    optimizer: Optimizer
    max_grad_norm: float
    precision: Literal["fp32", "bf16"]
    seed: int
    budget: float
    export: bool
    num_evaluations: int
    micro_batch_tokens: int
    checkpoint_seconds: float
    cache_dir: Path | None = None
    """Where compiled code is kept; None: the cache folder in the person's home."""
    ranks: int = 1
    """Processes that share the work, all started by torchrun. The result is the same to within rounding."""


def tune(job: TuneJob, progress: Progress) -> Mapping[str, Any]:
    """Run the job, or go on from its newest checkpoint. Returns the meter.

    Raises StageFailed where the loss stops being a number and weights were wanted; a trial (`export=False`) records it instead.
    """
    from campana.models.products import quick_products
    from campana.tuning.energy import Energy, counters_here
    from campana.tuning.loop import Diverged
    from campana.tuning.ranks import joined
    from campana.tuning.sharding import gather_

    _refuse_optimizer(job)
    clock = Clock()
    with joined(job.ranks) as ranks, Energy(counters_here(ranks)) as energy:
        run, warnings = _set_up(job, clock, progress, ranks, energy)
        run.resume()
        diverged: Diverged | None = None
        try:
            with quick_products():
                run.go()
        except Diverged as error:
            if job.export:
                raise StageFailed(error.message, where="tune", hint=_advice(job)) from error
            diverged = error
        if ranks.is_first:
            _write_results(job, run, warnings, diverged)
        if job.export:
            with clock("export"):
                gather_(run.model, ranks)
                if ranks.is_first:
                    _export(job, run.model)
        return _meter(job, run)


def _refuse_optimizer(job: TuneJob) -> None:
    if job.ranks > 1 and not job.optimizer.shards:
        raise StudyError(
            f"{job.optimizer.kind} cannot work on weights that are cut over {job.ranks} ranks",
            where="optimizer",
            hint="use adamw, whose state is cut too, or one rank",
        )


def _set_up(job: TuneJob, clock: Clock, progress: Progress, ranks: Ranks, energy: Energy) -> tuple[Run, list[str]]:
    """Everything that a run needs, before its first step."""
    from campana.data.prepared import PreparedRows
    from campana.models.load import load_model
    from campana.models.positions import refuse_beyond
    from campana.models.rotary import refuse_following
    from campana.native.build import Unavailable
    from campana.native.compiled import Compiled
    from campana.tuning import kernels, machine, optimizer, proof
    from campana.tuning.checkpoint import Checkpoints
    from campana.tuning.forward import Network, compute_type, dropouts_of
    from campana.tuning.loop import Run
    from campana.tuning.sharding import shard

    train, validation = (PreparedRows.open(job.data_dir / f"{name}.arrow") for name in ("train", "validation"))
    _refuse_empty(train, "train")
    plan = plan_of(job, train)
    with clock("load"):
        if ranks.count == 1:  # FSDP's blocks come and go: kept ones are holes
            machine.keep_memory()
        base: Any = load_model(job.model_dir)
        longest = max(int(rows.lengths.max(initial=0)) for rows in (train, validation))
        refuse_following(base, longest, "tune: {{max_length: {most}}}")
        if ranks.count == 1:  # else the whole model may not fit: each layer goes there when it is cut
            base.to(_device())
        refuse_beyond(base, longest)
        for name, rows in (("train", train), ("validation", validation)):
            _refuse_unknown_tokens(rows, name, base)
        rows = proof.sample(base.config, train, validation)
        expected = proof.reference(base, rows)
        model: Any = job.method.prepare(base, job.seed)
        model.eval()
        found = _compiled(job)
        compiled = found if isinstance(found, Compiled) else None
        kernels.fuse(model, compute_type(job.precision), compiled and compiled.elementwise)
        network = shard(Network.of(model, job.precision, compiled), ranks)
        network = proof.proven(network, rows, expected, job.precision)
        learning = optimizer.learning_parameters(model)
        stepper = optimizer.build(model, job.optimizer, job.learning_rate)  # its moments take memory for the first time
    run = Run(
        job=job,
        network=network,
        model=model,
        learning=learning,
        optimizer=stepper,
        train_rows=train,
        validation_rows=validation,
        plan=plan,
        dropouts=dropouts_of(model),
        checkpoints=Checkpoints(job.scratch_dir / "checkpoints", ranks),
        clock=clock,
        progress=progress,
        ranks=ranks,
        energy=energy,
        not_compiled=str(found) if isinstance(found, Unavailable) else None,
    )
    return run, _warnings(job, run)


def plan_of(job: TuneJob, train: Any) -> Plan:
    """The rows of each step: `budget` keeps the first steps of the full plan, and the schedule is fitted to what is left."""
    from campana.data.packing import plan_steps
    from campana.tuning.loop import Plan

    steps = plan_steps(train.lengths, job.batch_tokens, job.epochs, job.seed)
    steps = steps[: max(1, round(len(steps) * job.budget))]
    evaluate_after = {round(len(steps) * k / job.num_evaluations) for k in range(1, job.num_evaluations + 1)} | {0}
    total_tokens = int(sum(train.lengths[members].sum() for members in steps))
    return Plan(steps, total_tokens, frozenset(evaluate_after))


def _compiled(job: TuneJob) -> Compiled | Unavailable | None:
    """What computes on a CPU between the products, or why it cannot be had; None on a GPU."""
    from campana.native.build import Unavailable
    from campana.native.compiled import Compiled

    if _device() != "cpu":
        return None
    try:
        return Compiled.load(job.precision, job.cache_dir or default_cache_dir())
    except Unavailable as reason:
        return reason


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _refuse_empty(rows: Any, name: str) -> None:
    if len(rows) == 0:
        raise DataError(f"there are no {name} rows", hint="read data_report.json of the prepare stage: it says why rows were dropped")
    unsupervised = (rows.num_supervised == 0).nonzero()[0]
    if len(unsupervised):
        raise DataError(
            f"{len(unsupervised)} of {len(rows)} {name} rows have no supervised token, the first is row {unsupervised[0]}",
            hint="prepare the data again: such rows must have been dropped",
        )


def _refuse_unknown_tokens(rows: Any, name: str, model: Any) -> None:
    """A token that only the tokenizer knows: the output layer has no logit for it."""
    output = model.get_output_embeddings()
    if output is None:  # refused with a reason where the output layer is made
        return
    most = output.weight.shape[0]
    row = rows.first_beyond(most)
    if row is not None:
        raise DataError(
            f"{name} row {row} ({rows.source(row)}) has a token of a number that the model's {most:,} do not reach",
            hint="the tokenizer knows tokens that the model does not: use the tokenizer that came with it, or another template",
        )


def _advice(job: TuneJob) -> str:
    advice = f"lower the learning rate (it is {job.learning_rate:g}; try {job.learning_rate / 3:.2g})"
    if job.schedule.warmup == 0:
        advice += ", or warm up (schedule.warmup: 0.03)"
    return advice + ("" if job.precision == "fp32" else ", or compute in fp32")


def _warnings(job: TuneJob, run: Run) -> list[str]:
    """What a reader of the result should know; the same in every try of the same job."""
    found: list[str] = []
    if len(run.validation_rows) == 0:
        found.append("there are no validation rows: the held-out loss was not measured")
    if len(run.plan.steps) < 10:
        found.append(f"only {len(run.plan.steps)} optimiser steps: lower batch_tokens ({job.batch_tokens}) or train on more rows")
    if not run.network.whole_packs:
        found.append(f"{type(run.network.model).__name__} cannot be run on packs of rows: every row was run alone")
    return found


def _write_results(job: TuneJob, run: Run, warnings: list[str], diverged: Diverged | None) -> None:
    totals = run.totals
    validation = [(row["validation_loss"], row["step"]) for row in totals.rows if "validation_loss" in row]
    best = min(validation, default=None)
    measured = [loss for loss, step in validation if step == run.steps_done and diverged is None]
    final = measured[-1] if measured else None
    if best is not None and final is not None and best[0] < final * 0.99:
        warnings = [*warnings, f"the held-out loss was lower before the end: {best[0]:.4f} after step {best[1]}, {final:.4f} at the end"]
    result = {
        "schema": SCHEMA,
        "method": job.method.identity(),
        "steps": run.steps_done,
        "tokens": totals.tokens,
        "supervised_tokens": totals.supervised,
        "learning_rate": job.learning_rate,
        "initial_validation_loss": validation[0][0] if validation else None,
        "final_validation_loss": final,
        "best_validation_loss": best[0] if best else None,
        "best_step": best[1] if best else None,
        "trainable_parameters": sum(p.numel() for p in run.learning.values()),
        "total_parameters": sum(p.numel() for p in run.model.parameters()),
        "flops": _flops(job, totals),
        "diverged": None if diverged is None else {"step": diverged.step, "reason": diverged.what},
        "warnings": warnings,
    }
    job.out_dir.mkdir(parents=True, exist_ok=True)
    with (job.out_dir / "metrics.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in totals.rows)
    (job.out_dir / "tune.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _flops(job: TuneJob, totals: Totals) -> int | None:
    """Operations of training and validation by the work really done; None for a shape that the cost model does not know."""
    from campana.models.cost import training_flops
    from campana.models.load import read_config
    from campana.models.shape import Shape
    from campana.tuning.methods.full import Full

    method: Any = job.method  # the cost model reads its rank and targets, where it has them
    try:
        shape = Shape.from_config(read_config(job.model_dir))
        training = training_flops(shape, totals.real_tokens, totals.supervised, totals.squared_lengths, method)
        # full tuning is three forward passes' work; the adapter's own share of a validation pass (under 2%) is not counted
        forward = training_flops(shape, totals.validated_tokens, totals.validated_supervised, totals.validated_squared, Full()) // 3
    except ModelError:
        return None
    return training + forward


def _export(job: TuneJob, model: Any) -> None:
    """The weights, and of the base's files what makes the folder load alone."""
    from campana.models.quiet import quiet

    target = job.out_dir / "model"
    target.mkdir(parents=True, exist_ok=True)
    with quiet():
        job.method.export(model, target)
    for path in sorted(job.model_dir.iterdir()):
        if path.is_file() and path.name.startswith(COPIED) and not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)


def _meter(job: TuneJob, run: Run) -> dict[str, Any]:
    """What was measured; memory and the rate of matrix products are those of all ranks together, the other figures are rank 0's."""
    seconds = {phase: round(spent, 3) for phase, spent in sorted(run.clock.seconds.items())}
    training = max(run.clock.seconds["train"], 1e-9)
    flops = _flops(job, run.totals)
    busy = training + run.clock.seconds["validate"]
    (peak,) = run.ranks.sum(matmul_flops_per_second(job.precision))
    memory = run.ranks.gather(peak_memory_bytes())
    energy = run.energy_spent()
    return {
        "seconds": seconds,
        "tokens": run.totals.tokens,
        "supervised_tokens": run.totals.supervised,
        "tokens_per_second": run.totals.tokens / training,
        "supervised_tokens_per_second": run.totals.supervised / training,
        "peak_memory_bytes": sum(memory),
        "peak_memory_bytes_by_rank": memory,
        "flops": flops,
        "matmul_flops_per_second": peak,
        "utilisation": None if flops is None else flops / busy / peak,
        "resumed_from_step": run.resumed_from,
        "checkpoints": run.num_checkpoints,
        "failed_checkpoints": run.failed_checkpoints,
        "damaged_checkpoints": run.checkpoints.damaged,
        **({} if run.not_compiled is None else {"not_compiled": run.not_compiled}),
        **({} if energy is None else {"energy_joules": energy.joules, "energy_of": list(energy.of)}),
    }
