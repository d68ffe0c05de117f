"""The loop: optimiser steps over a plan of windows, held-out loss, checkpoints. One for all objectives.

    run = Run(job, network, plan, held_out, ...)
    run.resume(); run.go()

The first `plain_steps` steps minimise cross-entropy, the others the job's objective. Data order, choices of counterparts and dropout
follow from the seed and the step alone, so a run that was killed and resumed takes the same steps. A loss or gradient that is not
finite ends the run before it touches the weights (`Diverged`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from campana.errors import StoreError
from campana.parts import kind_of
from campana.reading.training.objective import StepRows
from campana.reading.training.plan import PLAIN, read_rows
from campana.tuning.ending import Ending
from campana.tuning.loop import CHECKPOINT_SHARE, Diverged
from campana.tuning.optimizer import set_rate
from campana.tuning.schedule import share
from campana.tuning.state import restore, tensors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch.nn import Module, Parameter

    from campana.reading.training.job import Progress, ReadTrainJob
    from campana.reading.training.network import Network
    from campana.tuning.checkpoint import Checkpoints
    from campana.tuning.clock import Clock


@dataclass
class Totals:
    """What the run has seen and found so far: all that goes into its result, and into every checkpoint."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    """Of all rows that were read, second views and counterparts included."""
    num_rows: int = 0
    squared_lengths: int = 0
    validated_tokens: int = 0
    validated_squared: int = 0


@dataclass(eq=False)
class Run:
    """One training run."""

    job: ReadTrainJob
    network: Network
    plan: Sequence[NDArray[np.int64]]
    held_out: Network | None
    """The same model over held-out questions; None where there are none."""
    extra: Module | None
    """Weights of the objective, which only training has."""
    learning: dict[str, Parameter]
    optimizer: torch.optim.Optimizer
    checkpoints: Checkpoints
    clock: Clock
    progress: Progress
    totals: Totals = field(default_factory=Totals)
    steps_done: int = 0
    resumed_from: int = 0
    num_checkpoints: int = 0
    failed_checkpoints: list[str] = field(default_factory=list)
    _since_checkpoint: float = field(default_factory=time.perf_counter)
    _checkpoint_cost: float = 0.0

    def resume(self) -> None:
        """Go back to the newest checkpoint that is whole and fits, if there is one."""
        saved = self.checkpoints.newest()
        if saved is None or not restore(saved, self.learning, self.optimizer):
            return
        self.totals = Totals(**saved.record["totals"])
        self.steps_done = self.resumed_from = saved.step
        for phase, spent in saved.record["seconds"].items():
            self.clock.seconds[phase] += spent

    def go(self) -> None:
        """Take the steps that are left."""
        count = len(self.plan)
        evaluate_after = {round(count * k / self.job.num_evaluations) for k in range(1, self.job.num_evaluations + 1)}
        if self.steps_done == 0 and not self.totals.rows:
            self._validate()
        self._since_checkpoint = time.perf_counter()
        with Ending(heeded=math.isfinite(self.job.checkpoint_seconds)) as ending:
            while self.steps_done < count:
                with self.clock("train"):
                    loss = self._step()
                speed = self.totals.tokens / self.clock.seconds["train"]
                self.progress(self.steps_done, count, "steps", loss=loss, tokens_per_second=speed)
                if self.steps_done in evaluate_after:
                    self._validate()
                asked = ending.is_asked
                self._checkpoint(at_once=asked)
                if asked:
                    ending.obey()

    def _step(self) -> float:
        """Returns the loss."""
        step, job = self.steps_done, self.job
        objective, rows = read_rows(step, self.plan[step], self.network.table.triples, job.objective, job.plain_steps, job.seed)
        rate = job.learning_rate * share(job.schedule, step, len(self.plan))
        set_rate(self.optimizer, rate)
        lengths = self.network.table.lengths[np.array(rows.windows)]
        entry: dict[str, Any] = {"step": step + 1, "objective": kind_of(type(objective)), "rows": len(rows.windows)}
        entry["tokens"] = int(lengths.sum())
        self.network.model.train()
        self.network.noise.at(step)
        outputs = self.network.read(rows, vectors=objective.reads_vectors and bool(rows.triples))
        loss, figures = objective.loss(outputs, rows, self.extra)
        if not math.isfinite(loss.item()):
            self._diverge(entry, rate, "the loss is not a number")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(list(self.learning.values()), job.max_grad_norm).item()
        if not math.isfinite(norm):
            self._diverge(entry, rate, "the gradient is not a number")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.totals.rows.append({**entry, "loss": loss.item(), **figures, "lr": rate, "grad_norm": norm})
        self.totals.tokens += entry["tokens"]
        self.totals.num_rows += len(rows.windows)
        self.totals.squared_lengths += int((lengths**2).sum())
        self.steps_done += 1
        return loss.item()

    def _diverge(self, entry: dict[str, Any], rate: float, what: str) -> None:
        self.totals.rows.append({**entry, "loss": None, "lr": rate, "grad_norm": None, "diverged": what})
        raise Diverged(entry["step"], what)

    def _validate(self) -> None:
        """The mean cross-entropy over held-out windows of the kind that is learnt from, as a row of the metrics."""
        if self.held_out is None:
            return
        table = self.held_out.table
        self.network.model.eval()
        total, windows = 0.0, table.units(self.job.questions)
        with self.clock("validate"), torch.no_grad():
            for start in range(0, len(windows), 64):
                rows = StepRows(tuple(int(window) for window in windows[start : start + 64]))
                total += PLAIN.loss(self.held_out.read(rows, vectors=False), rows, None)[0].item() * len(rows.windows)
        self.totals.validated_tokens += int(table.lengths[windows].sum())
        self.totals.validated_squared += int((table.lengths[windows] ** 2).sum())
        self.totals.rows.append({"step": self.steps_done, "validation_loss": total / len(windows)})

    def _checkpoint(self, *, at_once: bool) -> None:
        waited = time.perf_counter() - self._since_checkpoint
        every = self.job.checkpoint_seconds
        due = every == 0 or waited >= max(every, self._checkpoint_cost / CHECKPOINT_SHARE)
        if not at_once and (not due or self.steps_done == len(self.plan)):
            return
        before = time.perf_counter()
        record = {"totals": vars(self.totals), "seconds": dict(self.clock.seconds)}
        with self.clock("checkpoint"):
            try:
                self.checkpoints.save(self.steps_done, tensors_of(self.learning, self.optimizer), record)
                self.num_checkpoints += 1
            except StoreError as error:  # training goes on: the older checkpoint is still there, and space may come back
                self.failed_checkpoints.append(error.message)
        self._since_checkpoint = time.perf_counter()
        self._checkpoint_cost = self._since_checkpoint - before
