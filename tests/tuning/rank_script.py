"""A tune job as one process of several, by torchrun. Its argument is JSON: the job's folders and what differs from the rest."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from campana.tuning.job import TuneJob, tune
from campana.tuning.methods.full import Full
from campana.tuning.methods.lora import Lora
from campana.tuning.options import AdamW, Schedule


def main(text: str) -> None:
    told: dict[str, Any] = json.loads(text)
    torch.set_num_threads(1)
    left = told.get("calls", 10**9)

    def progress(done: float, total: float, unit: str, **figures: float | str) -> None:
        nonlocal left
        left -= 1
        if left < 0 and int(os.environ["RANK"]) == told["dies"]:
            os.kill(os.getpid(), signal.SIGKILL)

    meter = tune(
        TuneJob(
            model_dir=Path(told["model"]),
            data_dir=Path(told["data"]),
            out_dir=Path(told["folder"]) / "out",
            scratch_dir=Path(told["folder"]) / "scratch",
            method=Lora(rank=4) if told["method"] == "lora" else Full(),
            learning_rate=3e-3,
            epochs=2.0,
            batch_tokens=160,
            schedule=Schedule(warmup=0.1),
            optimizer=AdamW(weight_decay=0.01),
            max_grad_norm=1.0,
            precision=told.get("precision", "fp32"),
            seed=0,
            budget=1.0,
            export=True,
            num_evaluations=3,
            micro_batch_tokens=told.get("micro_batch_tokens", 90),
            checkpoint_seconds=0.0,
            ranks=int(os.environ["WORLD_SIZE"]),
        ),
        progress,
    )
    if os.environ["RANK"] == "0":
        (Path(told["folder"]) / "meter.json").write_text(json.dumps(dict(meter)))


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # as campana's worker leaves: gloo's threads sometimes abort an interpreter that takes itself down
