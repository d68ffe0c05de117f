"""Slow: a real process, killed with SIGKILL at random moments, resumes to the bytes of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
from campana.tuning.job import TuneJob, tune
from campana.tuning.methods.full import Full
from campana.tuning.methods.lora import Lora
from campana.tuning.options import AdamW, Schedule
import torch
torch.set_num_threads(1)
model, data, out, scratch, kind = sys.argv[1:]
job = TuneJob(
    model_dir=Path(model), data_dir=Path(data), out_dir=Path(out), scratch_dir=Path(scratch),
    method=Full() if kind == "full" else Lora(rank=4, dropout=0.1), learning_rate=3e-3, epochs=12.0, batch_tokens=160,
    schedule=Schedule(warmup=0.1), optimizer=AdamW(weight_decay=0.01), max_grad_norm=1.0, precision="fp32", seed=3, budget=1.0,
    export=True, num_evaluations=5, micro_batch_tokens=90, checkpoint_seconds=0.0,
)
meter = tune(job, lambda done, total, unit, **figures: print(json.dumps(done), flush=True))
print(json.dumps({"resumed_from_step": meter["resumed_from_step"]}), flush=True)
"""


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": str(random.randrange(1000))}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_kill_nine_at_random_moments(
    kind: str, model_dir: Path, data_dir: Path, tmp_path: Path, record_property: Callable[..., Any]
) -> None:
    seed = int(time.time())
    record_property("seed", seed)
    rng = random.Random(seed)

    def arguments(name: str) -> list[str]:
        return [str(model_dir), str(data_dir), str(tmp_path / name / "out"), str(tmp_path / name / "scratch"), kind]

    undisturbed = start(arguments("undisturbed"))
    told = len((undisturbed.communicate()[0]).splitlines())
    assert undisturbed.returncode == 0
    for _ in range(3):
        process = start(arguments("killed"))
        assert process.stdout is not None
        for _ in range(rng.randrange(1, max(2, told // 3))):
            if not process.stdout.readline():
                break
        time.sleep(rng.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = start(arguments("killed"))
    output = last.communicate()[0]
    assert last.returncode == 0
    assert json.loads(output.splitlines()[-1])["resumed_from_step"] > 0
    left, right = tmp_path / "undisturbed" / "out", tmp_path / "killed" / "out"
    names = sorted(str(p.relative_to(left)) for p in left.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(right)) for p in right.rglob("*") if p.is_file())
    for name in names:
        assert (left / name).read_bytes() == (right / name).read_bytes(), f"{name} (seed {seed})"
