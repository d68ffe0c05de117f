"""The loop: optimiser steps over packs, validation, checkpoints. One for all methods.

    run = Run(network, learning, optimizer, plan, ...)
    run.resume(); run.go()

A step's loss is normalised by the supervised tokens of the whole step, so it does not depend on how the step is cut into
packs, nor on how many ranks share them. Every rank goes through the same loop and logs the same rows; a pass over a pack is
theirs together, so a rank that has no rows in it computes a pack of no weight. A loss or gradient that is not finite, on any rank,
ends the run before it touches the weights (`Diverged`).
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from campana.errors import CampanaError, StoreError
from campana.tuning.ending import Ending
from campana.tuning.energy import NOTHING, Spent, together
from campana.tuning.optimizer import set_rate
from campana.tuning.schedule import share
from campana.tuning.sharding import clip_
from campana.tuning.shares import filler, share_of
from campana.tuning.state import restore, tensors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.nn import Parameter

    from campana.tuning.checkpoint import Checkpoints
    from campana.tuning.clock import Clock
    from campana.tuning.energy import Energy
    from campana.tuning.forward import Network
    from campana.tuning.job import Progress, TuneJob
    from campana.tuning.packs import Pack
    from campana.tuning.ranks import Ranks

CHECKPOINT_SHARE = 0.03
"""Most of the time that checkpoints may take, unless one is asked for after every step."""


class Diverged(CampanaError):  # noqa: N818 (an outcome that select weighs, not only an error)
    """The loss or its gradient stopped being a number."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"step {step}: {what}")
        self.step = step
        self.what = what


@dataclass(frozen=True)
class Plan:
    """What will be run: the rows of each step, and where the validation loss is measured."""

    steps: Sequence[Sequence[int]]
    total_tokens: int
    """Of all steps' rows."""
    evaluate_after: frozenset[int]
    """Numbers of finished steps; 0 is before training."""


@dataclass
class Totals:
    """What the run has seen and found so far: all that goes into tune.json, and into every checkpoint."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    tokens: int = 0
    supervised: int = 0
    real_tokens: int = 0
    """Tokens that were really computed (without what moves no loss)."""
    squared_lengths: int = 0
    """Sum over computed rows of length squared."""
    validated_tokens: int = 0
    validated_supervised: int = 0
    validated_squared: int = 0


@dataclass(eq=False)
class Run:
    """One training run, as one of its ranks sees it."""

    job: TuneJob
    network: Network
    model: torch.nn.Module
    learning: dict[str, Parameter]
    optimizer: torch.optim.Optimizer
    train_rows: Any
    validation_rows: Any
    plan: Plan
    dropouts: Sequence[torch.nn.Module]
    checkpoints: Checkpoints
    clock: Clock
    progress: Progress
    ranks: Ranks
    energy: Energy
    not_compiled: str | None = None
    """Why torch computes what compiled code would compute faster."""
    totals: Totals = field(default_factory=Totals)
    steps_done: int = 0
    resumed_from: int = 0
    num_checkpoints: int = 0
    failed_checkpoints: list[str] = field(default_factory=list)
    _energy_before: Spent | None = NOTHING
    _since_checkpoint: float = field(default_factory=time.perf_counter)
    _checkpoint_cost: float = 0.0
    _step_started: float = 0.0

    def resume(self) -> None:
        """Go back to the newest checkpoint that is whole and fits, if there is one."""
        saved = self.checkpoints.newest()
        if saved is None or not restore(saved, self.learning, self.optimizer):
            return
        seconds = saved.record["seconds"]
        self.totals = Totals(**saved.record["totals"])
        self.steps_done = self.resumed_from = saved.step
        for phase, spent in seconds.items():
            self.clock.seconds[phase] += spent
        told = saved.record.get("energy")  # absent in checkpoints of older releases: not known
        self._energy_before = None if told is None else Spent(told["joules"], tuple(told["of"]))

    def energy_spent(self) -> Spent | None:
        """By all ranks and since the first step, earlier tries up to their last checkpoint included; None where not all of it is known."""
        return together([self._energy_before, *self.ranks.gather(self.energy.spent())])

    def go(self) -> None:
        """Run the steps that are left."""
        if self.steps_done == 0 and not self.totals.rows:
            self._validate()
        self._since_checkpoint = time.perf_counter()
        with Ending(heeded=self.ranks.count == 1 and math.isfinite(self.job.checkpoint_seconds)) as ending:
            while self.steps_done < len(self.plan.steps):
                with self.clock("train"):
                    self._step()
                if self.steps_done in self.plan.evaluate_after:
                    self._validate()
                asked = ending.is_asked
                self._checkpoint(at_once=asked)
                if asked:
                    ending.obey()

    def _step(self) -> None:
        self._step_started = time.perf_counter()
        step = self.steps_done
        packs = self._packs(self.train_rows, self.plan.steps[step])
        mine = [pack for pack in packs if pack is not None]
        tokens, num_supervised, real_tokens, squared = map(int, self.ranks.sum(*_counts(mine)))
        rate = self.job.learning_rate * share(self.job.schedule, step, len(self.plan.steps))
        set_rate(self.optimizer, rate)
        row: dict[str, Any] = {"step": step + 1, "tokens": tokens, "supervised": num_supervised}
        total, supervised_done = 0.0, 0
        self._set_dropout(on=True)
        for index, pack in enumerate(packs):
            self._seed_dropout(step, index * self.ranks.count + self.ranks.index)
            loss = self._loss(pack, 1.0 / num_supervised)
            total += loss.item()
            loss.backward()
            supervised_done += 0 if pack is None else pack.targets.numel()
            self._tell(tokens * (index + 1) // len(packs), total * num_supervised / max(1, supervised_done))
        (total,) = self.ranks.sum(total)
        if not math.isfinite(total):
            self._diverge(row, rate, "the loss is not a number")
        norm = clip_(self.learning.values(), self.job.max_grad_norm, self.ranks)
        if not math.isfinite(norm):
            self._diverge(row, rate, "the gradient is not a number")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.totals.rows.append({**row, "loss": total, "lr": rate, "grad_norm": norm})
        self.totals.tokens += tokens
        self.totals.supervised += num_supervised
        self.totals.real_tokens += real_tokens
        self.totals.squared_lengths += squared
        self.steps_done += 1

    def _loss(self, pack: Pack | None, weight: float) -> torch.Tensor:
        return self.network.loss(self._filler, 0.0) if pack is None else self.network.loss(pack, weight)

    @cached_property
    def _filler(self) -> Pack:
        return filler(self.train_rows.row(0)).to(self.network.device)

    def _diverge(self, row: dict[str, Any], rate: float, what: str) -> None:
        self.totals.rows.append({**row, "loss": None, "lr": rate, "grad_norm": None, "diverged": what})
        raise Diverged(row["step"], what)

    def _seed_dropout(self, step: int, index: int) -> None:
        """Dropout layers draw from torch's generator, which takes no other: it is set anew for each pack, from seed and place alone."""
        if self.dropouts:
            torch.manual_seed((self.job.seed * 1_000_003 + step) * 10_007 + index)

    def _set_dropout(self, *, on: bool) -> None:
        for layer in self.dropouts:
            layer.train(on)

    def _packs(self, rows: Any, members: Sequence[int]) -> list[Pack | None]:
        """This rank's, one a pass."""
        found = [rows.row(i) for i in members]
        packs = share_of(found, self.job.micro_batch_tokens, self.ranks, alone=not self.network.whole_packs)
        return [None if pack is None else pack.to(self.network.device) for pack in packs]

    def _validate(self) -> None:
        """The mean loss over all held-out supervised tokens, as a row of the metrics."""
        count = len(self.validation_rows)
        if count == 0:
            return
        self._set_dropout(on=False)
        total, counts = 0.0, [0, 0, 0, 0]
        with self.clock("validate"), torch.no_grad():
            for start in range(0, count, 256):
                for pack in self._packs(self.validation_rows, range(start, min(start + 256, count))):
                    total += self._loss(pack, 1.0).item()
                    counts = [sum(pair) for pair in zip(counts, _counts([] if pack is None else [pack]), strict=True)]
            total, *counted = self.ranks.sum(total, *counts)
        _, supervised, real_tokens, squared = map(int, counted)
        self.totals.validated_tokens += real_tokens
        self.totals.validated_squared += squared
        self.totals.validated_supervised += supervised
        loss = total / supervised
        if not math.isfinite(loss):
            self._diverge({"step": self.steps_done, "tokens": 0, "supervised": 0}, 0.0, "the validation loss is not a number")
        self.totals.rows.append({"step": self.steps_done, "validation_loss": loss, "validation_tokens": supervised})

    def _checkpoint(self, *, at_once: bool) -> None:
        waited = time.perf_counter() - self._since_checkpoint
        every = self.job.checkpoint_seconds
        due = self.ranks.first(every == 0 or waited >= max(every, self._checkpoint_cost / CHECKPOINT_SHARE))
        if not at_once and (not due or self.steps_done == len(self.plan.steps)):
            return
        before = time.perf_counter()
        energy = self.energy_spent()
        record = {
            "totals": vars(self.totals),
            "seconds": dict(self.clock.seconds),
            "energy": None if energy is None else asdict(energy),
        }
        with self.clock("checkpoint"):
            try:
                self.checkpoints.save(self.steps_done, tensors_of(self.learning, self.optimizer), record)
                self.num_checkpoints += 1
            except StoreError as error:  # training goes on: the older checkpoint is still there, and space may come back
                self.failed_checkpoints.append(error.message)
        self._since_checkpoint = time.perf_counter()
        self._checkpoint_cost = self._since_checkpoint - before

    def _tell(self, step_tokens: int, loss: float) -> None:
        done = self.totals.tokens + step_tokens
        self.progress(
            done,
            self.plan.total_tokens,
            "tokens",
            loss=loss,
            tokens_per_second=done / max(self.clock.seconds["train"] + time.perf_counter() - self._step_started, 1e-9),
            step=self.steps_done + 1,
            steps=len(self.plan.steps),
        )


def _counts(packs: Sequence[Pack]) -> tuple[int, int, int, int]:
    """Tokens of the rows, supervised ones, those that are computed, and the sum of the computed rows' squared lengths."""
    lengths = [length for pack in packs for length in pack.segments.lengths]
    supervised = sum(pack.targets.numel() for pack in packs)
    return sum(pack.num_row_tokens for pack in packs), supervised, sum(lengths), sum(n * n for n in lengths)
