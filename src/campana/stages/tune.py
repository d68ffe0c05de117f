"""`tune`: one training run. Inputs: `model`, `data` (a `prepare` stage), and `select` where the learning rate was searched.

It runs on as many processes as its resources have ranks. Like `micro_batch_tokens` they move the result within rounding (with
dropout: they draw other noise of the same kind), so they are recorded and not keyed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from campana.core.spec import Context, Meter, StageSpec
from campana.parts import EXECUTION, part_of
from campana.stages._imports import TUNING
from campana.tuning.method import Method
from campana.tuning.options import AdamW, LearningRate, Optimizer, Schedule


class Tune(StageSpec):
    """Tune a model on prepared rows. Writes `model/` (a transformers folder or PEFT's adapter), `metrics.jsonl`, `tune.json`."""

    kind: Literal["tune"] = "tune"
    imports: ClassVar[tuple[str, ...]] = TUNING
    method: Annotated[SerializeAsAny[Method], part_of("method")]
    """What learns: `full` or `lora`."""
    learning_rate: LearningRate
    """Peak learning rate: fixed, or the one that the `select` stage found."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the training rows."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Tokens of one optimiser step, prompts included."""
    schedule: Schedule = Schedule()
    """How the learning rate goes."""
    optimizer: Optimizer = AdamW()
    """The optimiser."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this global norm."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the matrix products. Master weights, optimiser state and the loss are fp32 in both."""
    seed: int = 0
    """Data order, adapter initialisation and dropout."""
    budget: float = Field(default=1.0, gt=0, le=1)
    """Share of the steps that is run, with the schedule shortened to fit: below 1 in learning-rate trials."""
    export: bool = True
    """False in trials: the metrics are kept, the weights are not."""
    num_evaluations: int = Field(default=4, ge=1)
    """How often the validation loss is measured, evenly spaced, the end included."""
    micro_batch_tokens: Annotated[int, EXECUTION] = Field(default=768, ge=1)
    """Most tokens in one forward pass; a memory limit, it does not move the result beyond rounding."""
    checkpoint_seconds: Annotated[float, EXECUTION] = Field(default=120.0, ge=0)
    """Seconds between checkpoints, 0: after every step; a kill loses at most this much work."""

    def run(self, context: Context) -> Meter:
        from campana.tuning.job import TuneJob, tune
        from campana.tuning.selection import read_selected

        rate = self.learning_rate.value if self.learning_rate.kind == "fixed" else read_selected(context.inputs["select"])
        job = TuneJob(
            model_dir=context.inputs["model"],
            data_dir=context.inputs["data"],
            out_dir=context.out_dir,
            scratch_dir=context.scratch_dir,
            method=self.method,
            learning_rate=rate,
            epochs=self.epochs,
            batch_tokens=self.batch_tokens,
            schedule=self.schedule,
            optimizer=self.optimizer,
            max_grad_norm=self.max_grad_norm,
            precision=self.precision,
            seed=self.seed,
            budget=self.budget,
            export=self.export,
            num_evaluations=self.num_evaluations,
            micro_batch_tokens=self.micro_batch_tokens,
            checkpoint_seconds=self.checkpoint_seconds,
            cache_dir=context.cache_dir,
            ranks=context.resources.ranks,
        )
        return tune(job, context.progress)

    def outputs_to_check(self) -> Iterable[str]:
        return ("metrics.jsonl", "tune.json", *(("model",) if self.export else ()))
