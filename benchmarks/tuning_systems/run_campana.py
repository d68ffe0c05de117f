"""campana on one work. Called by `benchmarks/tuning.py` with a task as JSON; prints one JSON object as its last line.

The real `tune`, with a study's defaults but for what makes the work the same: AdamW's beta2, a constant rate, no checkpoints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from watch import Watch

from campana.stages.tune import Tune
from campana.tuning.job import TuneJob, tune
from campana.tuning.methods.full import Full
from campana.tuning.methods.lora import Lora
from campana.tuning.options import AdamW, Schedule


def main(task: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(task["threads"])
    watch = Watch()
    out_dir = Path(task["out_dir"])
    job = TuneJob(
        model_dir=Path(task["model_dir"]),
        data_dir=Path(task["data_dir"]),
        out_dir=out_dir,
        scratch_dir=out_dir / "scratch",
        method=Full() if task["method"] == "full" else Lora(rank=task["rank"], alpha=task["alpha"]),
        learning_rate=task["learning_rate"],
        epochs=1.0,
        batch_tokens=task["batch_tokens"],
        schedule=Schedule(kind="constant", warmup=0.0),
        optimizer=AdamW(beta2=0.999),
        max_grad_norm=1.0,
        precision=task["precision"],
        seed=task["seed"],
        budget=1.0,
        export=task["save"],
        num_evaluations=1,
        checkpoint_seconds=1e9,
        **{"micro_batch_tokens": Tune.model_fields["micro_batch_tokens"].default, **task["options"]},
    )
    meter = tune(job, lambda *_place, **_figures: None)
    steps = [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]
    result = watch.result([row["tokens"] for row in steps if "loss" in row])
    result["trainable_parameters"] = json.loads((out_dir / "tune.json").read_text())["trainable_parameters"]
    figures = ("flops", "matmul_flops_per_second", "utilisation", "tokens", "supervised_tokens", "peak_memory_bytes", "seconds")
    return {**result, "meter": {name: meter[name] for name in figures}}


if __name__ == "__main__":
    found = main(json.loads(sys.argv[1]))
    print("\n" + json.dumps(found))
