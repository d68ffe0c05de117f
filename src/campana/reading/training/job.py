"""One training run of a reader, from folders to a folder: what `stages.read_train` and `campana read train` call.

    meter = train_reader(ReadTrainJob(start_dir=..., examples=..., families=..., objective=SpanCL(), ...), progress)

Writes `metrics.jsonl` (a row a step, and held-out losses), `tune.json` (campana.read_train/1) and `model/`, a reader whose threshold and
P(no answer) are fitted on the held-out questions. None holds a time: a run that was killed and resumed writes the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from campana.errors import StageFailed
from campana.parts import kind_of
from campana.reading.examples import Example, Problems
from campana.reading.settings import Settings
from campana.reading.threshold import refuse_one_kind
from campana.reading.training.data import refuse_shared
from campana.reading.triples import Family
from campana.tuning.clock import Clock, matmul_flops_per_second, peak_memory_bytes

if TYPE_CHECKING:
    from campana.reading.calibration import Kind
    from campana.reading.reader import Reader
    from campana.reading.training.loop import Run
    from campana.reading.training.objective import Objective
    from campana.reading.training.questions import TrainingTable, Which
    from campana.tuning.options import AdamW, Schedule

SCHEMA = "campana.read_train/1"


class Progress(Protocol):
    """`core.spec.Progress`: how far a run is."""

    def __call__(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        """`done` of `total`, in `unit`s."""
        ...


@dataclass(frozen=True)
class ReadTrainJob:
    """A training run, resolved."""

    start_dir: Path
    """An encoder, or a reader that is trained on."""
    examples: Sequence[Example]
    families: Sequence[Family]
    """Counterparts that an objective may contrast the examples with."""
    held_out: Sequence[Example]
    """For the held-out loss; never trained on."""
    out_dir: Path
    scratch_dir: Path
    objective: Objective
    steps: int
    plain_steps: int
    """How many of the steps minimise cross-entropy alone, before the objective begins."""
    questions: Which
    """What the steps draw from."""
    batch_tokens: int
    learning_rate: float
    schedule: Schedule
    optimizer: AdamW
    max_grad_norm: float
    dropout: float
    precision: Literal["fp32", "bf16"]
    seed: int
    settings: Settings
    fit: Kind | None
    """What threshold and P(no answer) are fitted by, on the held-out questions, once training is done; None: not at all."""
    num_evaluations: int
    checkpoint_seconds: float
    cache_dir: Path | None = None
    """Where compiled code is kept; None: the cache folder in the person's home."""
    problems: Problems = field(default_factory=Problems)
    """What was wrong in the files, to be told with what the windows add to it."""


def train_reader(job: ReadTrainJob, progress: Progress) -> Mapping[str, Any]:
    """Run the job, or go on from its newest checkpoint. Returns the meter. StageFailed where the loss stops being a number."""
    from campana.models.products import quick_products
    from campana.tuning.loop import Diverged

    refuse_shared(job.examples, job.held_out, "both trained on and held out")
    if job.fit is not None:
        refuse_one_kind(job.held_out)
    clock = Clock()
    run, reader, tokenizer = _set_up(job, clock, progress)
    run.resume()
    try:
        with quick_products():
            run.go()
    except Diverged as error:
        hint = f"lower the learning rate (it is {job.learning_rate:g}; try {job.learning_rate / 3:.2g}), or warm up longer"
        raise StageFailed(error.message, where="read_train", hint=hint) from error
    _write_results(job, run)
    with clock("export"):
        _export(job, run, reader, tokenizer)
    return _meter(job, run)


def _set_up(job: ReadTrainJob, clock: Clock, progress: Progress) -> tuple[Run, Reader, Any]:
    """Everything that a run needs, before its first step; the reader that its model will be, not fitted yet; and the tokenizer."""
    import torch

    from campana.native.compiled import Compiled
    from campana.reading.evaluate import refuse_seen
    from campana.reading.reader import Reader
    from campana.reading.span_model import load_span_model
    from campana.reading.training.loop import Run
    from campana.reading.training.network import Network
    from campana.reading.training.plan import drawn_steps
    from campana.reading.training.questions import TrainingTable
    from campana.tuning import machine, optimizer
    from campana.tuning.checkpoint import Checkpoints

    with clock("load"):
        machine.keep_memory()
        torch.manual_seed(job.seed)  # a new head
        model, tokenizer, _ = load_span_model(job.start_dir)
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # pyright: ignore[reportArgumentType]  # transformers decorates `to`
    reader = Reader.of(model, tokenizer, {"settings": job.settings.as_dict(), "about": _about(job)})
    refuse_seen(reader, job.held_out)  # documents of the reader that is trained on
    with clock("windows"):
        table = TrainingTable.build(job.examples, job.families, reader.layout, reader.settings, job.problems)
        held_out = TrainingTable.build(job.held_out, (), reader.layout, reader.settings) if job.held_out else None
    plan = drawn_steps(table, job.questions, job.batch_tokens, job.steps, job.seed)
    compiled = Compiled.find(job.precision, job.cache_dir)
    network = Network.of(model, table, precision=job.precision, dropout=job.dropout, seed=job.seed, compiled=compiled)
    extra = job.objective.modules(network.width, job.seed)
    whole = torch.nn.ModuleDict({"model": model, **({"extra": extra.to(model.device)} if extra is not None else {})})
    run = Run(
        job=job,
        network=network,
        plan=plan,
        held_out=replace(network, table=held_out) if held_out is not None else None,
        extra=extra,
        learning=optimizer.learning_parameters(whole),
        optimizer=optimizer.build(whole, job.optimizer, job.learning_rate),
        checkpoints=Checkpoints(job.scratch_dir / "checkpoints"),
        clock=clock,
        progress=progress,
    )
    return run, reader, tokenizer


def _about(job: ReadTrainJob) -> dict[str, Any]:
    """What reader.json will say of how the reader was made."""
    from campana.reading.reader import read_stored

    before: Mapping[str, Any] = read_stored(job.start_dir).get("about") or {}
    documents = {example.document for example in job.examples} | set(before.get("documents") or ())
    return {"trained": kind_of(type(job.objective)), "steps": int(before.get("steps") or 0) + job.steps, "documents": sorted(documents)}


def _write_results(job: ReadTrainJob, run: Run) -> None:
    totals, table = run.totals, run.network.table
    validation = [(row["validation_loss"], row["step"]) for row in totals.rows if "validation_loss" in row]
    best = min(validation, default=None)
    result = {
        "schema": SCHEMA,
        "objective": job.objective.identity(),
        "steps": run.steps_done,
        "plain_steps": job.plain_steps,
        "tokens": totals.tokens,
        "supervised_tokens": 2 * totals.num_rows,
        "rows": totals.num_rows,
        "questions": len(table.units(job.questions)),
        "epochs": sum(len(windows) for windows in run.plan) / len(table.units(job.questions)),
        "triples": len(table.triples),
        "problems": table.problems.as_dict(),
        "learning_rate": job.learning_rate,
        "initial_validation_loss": validation[0][0] if validation else None,
        "final_validation_loss": validation[-1][0] if validation else None,
        "best_validation_loss": best[0] if best else None,
        "best_step": best[1] if best else None,
        "trainable_parameters": sum(p.numel() for p in run.learning.values()),
        "total_parameters": sum(p.numel() for p in run.network.model.parameters()),
        "flops": _flops(run),
        "warnings": _warnings(job, run, table),
    }
    job.out_dir.mkdir(parents=True, exist_ok=True)
    with (job.out_dir / "metrics.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in totals.rows)
    (job.out_dir / "tune.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _warnings(job: ReadTrainJob, run: Run, table: TrainingTable) -> list[str]:
    found: list[str] = []
    if run.held_out is None:
        found.append("there are no held-out questions: the held-out loss was not measured")
    if job.objective.reads_vectors and not table.triples:
        found.append("no question has a counterpart to be contrasted with: the objective was cross-entropy alone")
    if job.dropout and not run.network.num_dropouts:
        found.append("this kind of model has no layer whose output could be dropped: it was trained without dropout")
    near = [row["similarity_negative"] for row in run.totals.rows if "similarity_negative" in row][-50:]
    if near and sum(near) / len(near) > 0.99:
        found.append("span vectors of answerable and unanswerable questions are the same (cosine above 0.99): no contrast")
    return found


def _flops(run: Run) -> int:
    """Operations of training and validation."""
    shape, totals = run.network.shape, run.totals
    training = shape.training_flops(totals.tokens, totals.squared_lengths)
    return training + shape.forward_flops(totals.validated_tokens, totals.validated_squared)


def _export(job: ReadTrainJob, run: Run, reader: Reader, tokenizer: Any) -> None:
    from campana.reading.evaluate import fitted
    from campana.reading.reader import save_reader
    from campana.tuning.kernels import unfuse

    model = run.network.model.eval()
    unfuse(model)  # the threshold is fitted as the reader will read
    if job.fit is not None:
        reader = fitted(reader, job.held_out, job.fit)
    save_reader(job.out_dir / "model", model, tokenizer, reader)


def _meter(job: ReadTrainJob, run: Run) -> dict[str, Any]:
    training = max(run.clock.seconds["train"], 1e-9)
    flops = _flops(run)
    return {
        "seconds": {phase: round(spent, 3) for phase, spent in sorted(run.clock.seconds.items())},
        "tokens": run.totals.tokens,
        "supervised_tokens": 2 * run.totals.num_rows,
        "tokens_per_second": run.totals.tokens / training,
        "steps_per_second": run.steps_done / training,
        "peak_memory_bytes": peak_memory_bytes(),
        "flops": flops,
        "utilisation": flops / (training + run.clock.seconds["validate"]) / matmul_flops_per_second(job.precision),
        "resumed_from_step": run.resumed_from,
        "checkpoints": run.num_checkpoints,
        "failed_checkpoints": run.failed_checkpoints,
    }
