"""What is measured in a system's process, the same way in all of them. Needs torch and nothing else, so it runs in every environment.

    watch = Watch()                     # the end of every optimiser step from now on, whatever trainer makes it
    ... train ...
    print(json.dumps(watch.result()))

Seconds and CPU seconds of a step run from the end of the step before it to its own end; peak memory is the process's.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook


class Watch:
    """Counts tokens and times optimiser steps."""

    def __init__(self) -> None:
        self.tokens = 0
        self.ends: list[tuple[float, float, int, float]] = []
        """Wall clock, CPU clock, tokens seen and CPU seconds of the whole machine at the end of every step."""
        register_optimizer_step_post_hook(self._ended)

    def _ended(self, *_of_torch: Any) -> None:
        self.ends.append((time.perf_counter(), time.process_time(), self.tokens, machine_seconds()))

    def count(self, inputs: dict[str, Any]) -> None:
        """Tokens of a micro batch of a transformers trainer, without padding."""
        self.tokens += int(real_tokens(inputs).sum())

    def result(self, step_tokens: list[int] | None = None) -> dict[str, Any]:
        """Tokens, seconds and CPU seconds of every step but the first. `step_tokens`: of every step, where `count` was not called."""
        pairs = list(zip(self.ends, self.ends[1:], strict=False))
        tokens = [b[2] - a[2] for a, b in pairs] if step_tokens is None else step_tokens[1:]
        return {
            "steps": len(self.ends),
            "step_tokens": tokens,
            "step_seconds": [round(b[0] - a[0], 3) for a, b in pairs],
            "step_cpu_seconds": [round(b[1] - a[1], 3) for a, b in pairs],
            "step_other_seconds": [round(b[3] - a[3] - (b[1] - a[1]), 3) for a, b in pairs],
            "peak_memory_bytes": peak_memory_bytes(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def machine_seconds() -> float:
    """CPU seconds of all processes since the machine started, and what its host took; NaN in a container that sees its host's."""
    lines = Path("/proc/stat").read_text().splitlines()
    if sum(line.startswith("cpu") for line in lines) - 1 != len(os.sched_getaffinity(0)):
        return math.nan
    user, nice, system, _idle, _waiting, *interrupts_and_stolen = (int(each) for each in lines[0].split()[1:9])
    return (user + nice + system + sum(interrupts_and_stolen)) / os.sysconf("SC_CLK_TCK")


def peak_memory_bytes() -> int:
    """On CUDA what torch has allocated at most, else the most resident memory of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "the kernel says how much memory was held at most"
    return int(found.group(1)) * 1024


def real_tokens(inputs: dict[str, Any]) -> torch.Tensor:
    """[rows, length] bool: which places of a micro batch hold a token of a row."""
    mask = inputs.get("attention_mask")
    if mask is None:
        return torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    if mask.dim() == 4:  # additive, a token may look at itself; padding may not
        return mask[:, 0].diagonal(dim1=-2, dim2=-1) == 0
    return mask != 0


def rows_of(inputs: dict[str, Any]) -> list[tuple[int, int, int]]:
    """The rows of a micro batch, as (line, start, end): a packed line has several, told by positions that start again at 0."""
    real, positions = real_tokens(inputs), inputs.get("position_ids")
    found: list[tuple[int, int, int]] = []
    for line in range(real.shape[0]):
        length = int(real[line].sum())
        starts = [0] if positions is None else (positions[line][:length] == 0).nonzero().flatten().tolist()
        found += [(line, start, end) for start, end in zip(starts, [*starts[1:], length], strict=True)]
    return found


@torch.no_grad()
def contamination(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """How far each row's loss in this micro batch is from its loss alone: the largest relative difference over rows."""
    labels, ids = inputs["labels"], inputs["input_ids"]
    given = {name: _wide(value) for name, value in inputs.items() if name != "labels"}
    together = model(**given, use_cache=False).logits
    worst, lengths = 0.0, []
    for line, start, end in rows_of(inputs):
        targets = labels[line, start + 1 : end]
        alone = model(input_ids=ids[line : line + 1, start:end], use_cache=False).logits[0, :-1]
        packed = together[line, start : end - 1]
        a, b = (torch.nn.functional.cross_entropy(x.float(), targets, ignore_index=-100).item() for x in (packed, alone))
        worst = max(worst, abs(a - b) / abs(b))
        lengths.append(end - start)
    return {"rows": len(lengths), "longest_row": max(lengths), "worst_relative_difference": worst}


def _wide(value: Any) -> Any:
    """A mask in bf16 as fp32: the weights are fp32 and nothing casts here."""
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def put_watch(trainer_class: Any, watch: Watch) -> None:
    """Let a transformers trainer's micro batches be counted."""
    step = trainer_class.training_step

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        watch.count(inputs)
        return step(self, model, inputs, *rest, **named)

    trainer_class.training_step = training_step


def prove(trainer: Any) -> dict[str, Any]:
    """`contamination` of the trainer's own first micro batch."""
    return contamination(trainer.model, next(iter(trainer.get_train_dataloader())))


def read_rows(path: Path) -> list[dict[str, list[int]]]:
    """The rows of a work: `input_ids` and `labels`."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
