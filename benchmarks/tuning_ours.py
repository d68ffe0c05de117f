"""How fast and lean our training loop is: unpadded tokens a second and peak memory, by length profile and method.

    python benchmarks/tuning_ours.py --model MODEL_DIR [--profiles chat mixed long] [--methods full lora] [--steps 2]

Every measurement is a process of its own (peak memory is its own) and runs the real `tune` on rows of random tokens: speed does not
depend on what the tokens say. The last line of output is one JSON object. `cpu_seconds_per_token` is process time over all
threads: it stays comparable when other work shares the machine, as wall-clock figures do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from campana.executors.environment import start_anew

PROFILES: dict[str, tuple[float, float, int]] = {"chat": (45.0, 0.35, 256), "mixed": (300.0, 0.5, 1024), "long": (1000.0, 0.02, 1024)}
"""Name -> median length, sigma of its logarithm, longest row."""
SUPERVISED_SHARE = 0.66


def main() -> None:
    """Measure what the command line names."""
    start_anew()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a stored model: a transformers folder")
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), default=list(PROFILES))
    parser.add_argument("--methods", nargs="+", choices=["full", "lora"], default=["full", "lora"])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens of a step")
    parser.add_argument("--micro", type=int, default=768, help="micro_batch_tokens")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments, arguments.profiles[0], arguments.methods[0])))
        return
    results: dict[str, Any] = {}
    for profile in arguments.profiles:
        for method in arguments.methods:
            command = [sys.executable, __file__, "--one", "--model", str(arguments.model), "--profiles", profile, "--methods", method]
            command += ["--precision", arguments.precision, "--steps", str(arguments.steps), "--micro", str(arguments.micro)]
            command += ["--batch-tokens", str(arguments.batch_tokens)]
            output = subprocess.run([*command, "--threads", str(arguments.threads)], check=True, stdout=subprocess.PIPE, text=True).stdout
            result = json.loads(output.splitlines()[-1])
            results[f"{profile}/{method}"] = result
            print(f"{profile:6} {method:5} {result['tokens_per_second']:8.1f} tokens/s {result['peak_memory_gb']:6.2f} GB", file=sys.stderr)
    print(json.dumps({"model": arguments.model.name, "precision": arguments.precision, "results": results}))


def measure(arguments: argparse.Namespace, profile: str, method_name: str) -> dict[str, Any]:
    """One run of `tune`, in this process."""
    import torch

    from campana.tuning.job import TuneJob, tune
    from campana.tuning.methods.full import Full
    from campana.tuning.methods.lora import Lora
    from campana.tuning.options import AdamW, Schedule

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocabulary = json.loads((arguments.model / "config.json").read_text())["vocab_size"]
        write_rows(folder / "train.arrow", profile, arguments.steps * arguments.batch_tokens, vocabulary)
        write_rows(folder / "validation.arrow", profile, 0, vocabulary)
        job = TuneJob(
            model_dir=arguments.model,
            data_dir=folder,
            out_dir=folder / "out",
            scratch_dir=folder / "scratch",
            method=Full() if method_name == "full" else Lora(rank=16),
            learning_rate=1e-5 if method_name == "full" else 1e-4,
            epochs=1.0,
            batch_tokens=arguments.batch_tokens,
            schedule=Schedule(),
            optimizer=AdamW(),
            max_grad_norm=1.0,
            precision=arguments.precision,
            seed=0,
            budget=1.0,
            export=False,
            num_evaluations=1,
            micro_batch_tokens=arguments.micro,
            checkpoint_seconds=1e9,
        )
        before = time.process_time()
        meter = tune(job, lambda *_place, **_figures: None)
        cpu_seconds = time.process_time() - before
    return {
        "tokens_per_second": round(meter["tokens_per_second"], 1),
        "supervised_tokens_per_second": round(meter["supervised_tokens_per_second"], 1),
        "cpu_seconds_per_token": cpu_seconds / meter["tokens"],
        "peak_memory_gb": round(meter["peak_memory_bytes"] / 1e9, 2),
        "gflop_per_token": meter["flops"] / meter["tokens"] / 1e9 if meter["flops"] else None,
        "utilisation": meter["utilisation"],
        "seconds": meter["seconds"],
        "tokens": meter["tokens"],
        "threads": torch.get_num_threads(),
    }


def write_rows(path: Path, profile: str, num_tokens: int, vocabulary: int) -> None:
    """Rows of about `num_tokens` random tokens in all; the last two thirds of each are supervised."""
    from campana.data.prepared import RowWriter

    rng = np.random.default_rng(0)
    median, sigma, longest = PROFILES[profile]
    ids: list[list[int]] = []
    masks: list[list[bool]] = []
    while sum(map(len, ids)) < num_tokens:
        length = int(np.clip(median * np.exp(sigma * rng.standard_normal()), 8, longest))
        answer = round(SUPERVISED_SHARE * length)
        ids.append(rng.integers(3, vocabulary, length).tolist())
        masks.append([False] * (length - answer) + [True] * answer)
    with RowWriter(path) as writer:
        if ids:
            columns = {"ids": ids, "supervised": masks, "num_supervised": [sum(m) for m in masks]}
            writer.write({**columns, "source": [f"random:{i}" for i in range(len(ids))]})


if __name__ == "__main__":
    main()
