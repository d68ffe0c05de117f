"""What a rank must hold: bytes of weights, gradients and optimiser state, and resident memory, by number of ranks and by optimiser.

    python benchmarks/ranks.py [--ranks 1 2 4] [--methods full lora] [--optimizers adamw adafactor]

The model has the shape of SmolLM2-135M and random weights; every measurement runs the real `tune` as processes of its own, over gloo
on this machine's cores. `held_mb` is what the tensors of the largest rank take between two steps, counted; `peak_mb` is its resident
memory at its highest while it trains (reset after the first step), and `load_peak_mb` the same until then. Ranks share the cores:
their tokens a second say what the collectives cost here, not what more machines would give. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from campana.executors.environment import task_environment

MEGABYTE = 1e6


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--methods", nargs="+", choices=["full", "lora"], default=["full", "lora"])
    parser.add_argument("--optimizers", nargs="+", choices=["adamw", "adafactor"], default=["adamw", "adafactor"])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, default=3, help="optimiser steps")
    parser.add_argument("--batch-tokens", type=int, default=512, help="tokens of a step, over all ranks")
    parser.add_argument("--micro", type=int, default=128, help="micro_batch_tokens")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "METHOD", "OPTIMIZER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments, Path(arguments.one[0]), arguments.one[1], arguments.one[2])
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments)
        for method in arguments.methods:
            for optimizer in arguments.optimizers:
                for ranks in arguments.ranks if optimizer == "adamw" else [1]:
                    found = launched(arguments, folder, method, optimizer, ranks)
                    results[f"{method}/{optimizer}/{ranks}"] = found
                    print(f"{method:5} {optimizer:9} {ranks} ranks  {found}", file=sys.stderr)
    print(json.dumps({"precision": arguments.precision, "cores": len(os.sched_getaffinity(0)), "results": results}))


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """A model, its tokenizer's absence, and rows of random tokens: as many as the steps take."""
    import numpy as np
    from transformers import LlamaConfig, LlamaForCausalLM

    from campana.data.prepared import RowWriter
    from campana.models.quiet import quiet

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    with quiet():
        LlamaForCausalLM(config).save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    for split, tokens in (("train", arguments.batch_tokens * arguments.steps), ("validation", 64)):
        length = 64
        ids = rng.integers(4, config.vocab_size, (tokens // length, length)).tolist()
        with RowWriter(folder / f"{split}.arrow") as writer:
            columns = {"ids": ids, "supervised": [[False] * 20 + [True] * (length - 20)] * len(ids)}
            writer.write({**columns, "num_supervised": [length - 20] * len(ids), "source": ["made"] * len(ids)})


def launched(arguments: argparse.Namespace, folder: Path, method: str, optimizer: str, ranks: int) -> dict[str, Any]:
    """One run of `tune` by so many processes; the largest rank's figures."""
    out = folder / f"{method}-{optimizer}-{ranks}"
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", __file__]
    argv += ["--precision", arguments.precision, "--steps", str(arguments.steps), "--micro", str(arguments.micro)]
    argv += ["--batch-tokens", str(arguments.batch_tokens), "--one", str(out), method, optimizer]
    threads = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    subprocess.run(argv, check=True, env={**task_environment(), "OMP_NUM_THREADS": threads}, stdout=sys.stderr)
    found = [json.loads(path.read_text()) for path in sorted(out.glob("rank-*.json"))]
    largest = {name: round(max(each[name] for each in found), 1) for name in found[0] if name.endswith("_mb")}
    return {**largest, "tokens_per_second": round(found[0]["tokens_per_second"], 1)}


def measure(arguments: argparse.Namespace, out: Path, method: str, optimizer: str) -> None:
    """One rank's run of `tune`; its figures as a file in `out`."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    from campana.tuning.job import TuneJob, tune
    from campana.tuning.methods.full import Full
    from campana.tuning.methods.lora import Lora
    from campana.tuning.options import Adafactor, AdamW, Schedule
    from campana.tuning.sharding import local

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    found: dict[str, float] = {}

    def held(of: torch.optim.Optimizer) -> dict[str, float]:
        weights = {p.untyped_storage().data_ptr(): p.nbytes for p in map(local, (p for p in gc.get_objects() if is_parameter(p)))}
        learning = [p for group in of.param_groups for p in group["params"]]
        gradients = sum(local(p.grad).nbytes for p in learning if p.grad is not None)
        state = sum(local(value).nbytes for values in of.state.values() for value in values.values())
        sizes = {"weights_mb": sum(weights.values()), "gradients_mb": gradients, "state_mb": state}
        return {name: size / MEGABYTE for name, size in {**sizes, "held_mb": sum(sizes.values())}.items()}

    def before_step(of: torch.optim.Optimizer, *_: Any) -> None:
        if of.state:  # from the second step on
            found.update(held(of))

    def after_step(*_: Any) -> None:
        if "load_peak_mb" not in found:
            found["load_peak_mb"] = resident_peak_mb()
            Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten

    register_optimizer_step_pre_hook(before_step)
    register_optimizer_step_post_hook(after_step)
    job = TuneJob(
        model_dir=out.parent / "model",
        data_dir=out.parent,
        out_dir=out / "out",
        scratch_dir=out / "scratch",
        method=Full() if method == "full" else Lora(rank=16),
        learning_rate=1e-4,
        epochs=1.0,
        batch_tokens=arguments.batch_tokens,
        schedule=Schedule(),
        optimizer=AdamW() if optimizer == "adamw" else Adafactor(),
        max_grad_norm=1.0,
        precision=arguments.precision,
        seed=0,
        budget=1.0,
        export=False,
        num_evaluations=1,
        micro_batch_tokens=arguments.micro,
        checkpoint_seconds=1e9,
        ranks=ranks,
    )
    meter = tune(job, lambda *_, **__: None)
    found["peak_mb"] = resident_peak_mb()
    found["tokens_per_second"] = meter["tokens_per_second"]
    (out / f"rank-{rank}.json").write_text(json.dumps(found))


def is_parameter(value: object) -> bool:
    """Whether an object is a weight; not by isinstance, which runs code of lazy modules."""
    import torch

    return type(value) is torch.nn.Parameter or (type(value).__name__ == "DTensor" and getattr(value, "_is_param", False))


def resident_peak_mb() -> float:
    """The most memory that this process has held since it was last reset."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match.group(1)) * 1024 / MEGABYTE


if __name__ == "__main__":
    main()
