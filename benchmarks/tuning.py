"""campana's trainer against TRL and LLaMA-Factory: the same model, rows, order, learning rate and rows a step, all systems in one run.

    python benchmarks/tuning.py                                              # everything: a few hours on two cores
    python benchmarks/tuning.py --works smollm2/full/chat --rounds 1         # one piece
    python benchmarks/tuning.py --works smollm2/full/chat --factor 8         # eight times the steps, on more rows of the kind
    python benchmarks/tuning.py --growth                                     # campana alone, by rows and by length: a quarter of an hour

Every run is a process of its own, in its system's own environment (`tuning_peers.py` makes them). Systems alternate within a round. A run
is kept in `--results` as soon as it ends, so a killed benchmark goes on, and pieces of one benchmark add up. Unpadded tokens a second are
of all steps but the first, the median over rounds; the loss is that of all systems' stored models on the same held-out rows, by one
evaluator, the mean over rounds. Rounds have seeds of their own: they draw other adapters and, in campana, another order of rows. A
setting that packs is a rival only where its own first micro batch gives each row the loss that it has alone; "llamafactory, packing" is
there as the control that must fail this.

Prints a table a work and, as the last line, one JSON object with the figures, the ratios and the versions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuning_peers import PINS, environment, settings, versions
from tuning_work import ALPHA, METHODS, MODELS, PACK, PROFILES, RANK, TINY, Made, Work, make

from campana.executors.environment import task_environment

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("CAMPANA_CACHE", Path.home() / ".cache" / "campana"))
CONTAMINATED = 1e-4
"""A packed row's loss may differ by so much from its loss alone, both in fp32 (rounding is about 1e-7)."""
OTHERS = 0.1
"""A run during whose steps others took more than this share of the machine is marked, and no median counts it."""
DISTURBED = 0.85
"""The same where others cannot be seen: steps that had less than this share of their threads."""
EQUAL_LOSS = 0.005
MOST_SECONDS = 3600
TRAINER = ("data", "executors", "models", "native", "tuning")
"""Folders of the package whose code moves a run's figures."""
GROWTH_ROWS = (1_000, 5_000, 50_000)
"""Learnt by a model of two narrow layers: what grows with the rows is the loop's own work, and here it is not hidden by the model's."""
GROWTH_LENGTHS = (128, 512, 1024, 4096)
GROWTH_TOKENS = 16_384


@dataclass(frozen=True)
class System:
    """One trainer with one group of settings."""

    name: str
    peer: str | None
    """Its environment; None: campana's own."""
    is_default: bool = False
    """As it comes: a micro batch is a step, so it takes more steps than the others and its loss is not compared."""
    packs: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    rows: int | None = None
    """Rows of a micro batch; the step's others are accumulated."""

    def arguments(self, work: Work, made: Made) -> dict[str, Any]:
        """The settings that this work gives it."""
        if self.peer is None or self.is_default:
            return dict(self.options)
        if self.packs:
            packs = max(1, round(made.tokens / work.steps / PACK / self.options.get("per_device_train_batch_size", 1)))
            return {**self.options, "gradient_accumulation_steps": packs}
        rows = self.rows or PROFILES[work.profile].rows_a_step
        accumulated = PROFILES[work.profile].rows_a_step // rows
        return {**self.options, "per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulated}


PACKED = {"packing": True, "neat_packing": True, "cutoff_len": PACK, "disable_gradient_checkpointing": True}
SYSTEMS = (
    System("campana", None),
    System("campana, packs of 2,048", None, options={"micro_batch_tokens": 2 * PACK}),
    System("trl, defaults", "trl", is_default=True),
    System("trl, batch 8", "trl", rows=8, options={"gradient_checkpointing": False}),
    System("trl, packing", "trl", packs=True, options={"packing": True, "gradient_checkpointing": False, "per_device_train_batch_size": 1}),
    System("llamafactory, defaults", "llamafactory", is_default=True),
    System("llamafactory, batch 8", "llamafactory", rows=8, options={"disable_gradient_checkpointing": True, "cutoff_len": PACK}),
    System(
        "llamafactory, packing", "llamafactory", packs=True, options={**PACKED, "neat_packing": False, "per_device_train_batch_size": 1}
    ),
    System("llamafactory, neat packing", "llamafactory", packs=True, options={**PACKED, "per_device_train_batch_size": 1}),
)
SCRIPTS = {None: "run_campana.py", "trl": "run_trl.py", "llamafactory": "run_llamafactory.py"}


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [f"{model}/{method}/{profile}" for model in MODELS for method in METHODS for profile in PROFILES]
    parser.add_argument("--works", nargs="+", choices=every, default=every, metavar="MODEL/METHOD/PROFILE")
    parser.add_argument("--systems", nargs="+", choices=[s.name for s in SYSTEMS], default=[s.name for s in SYSTEMS])
    parser.add_argument(
        "--factor", type=int, default=1, help="times the steps of each work: whether losses stay equal takes more than a few"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=Path, default=CACHE / "benchmarks" / "tuning.jsonl", help="where runs are kept")
    parser.add_argument("--growth", action="store_true", help="campana alone, by rows and by length")
    arguments = parser.parse_args()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.results, arguments.precision, arguments.threads)
    if arguments.growth:
        print(json.dumps({"growth": list(growth(bench))}))
        return
    systems = [s for s in SYSTEMS if s.name in arguments.systems]
    found: dict[str, Any] = {}
    for name in arguments.works:
        work = Work(*name.split("/"), factor=arguments.factor)
        found[name] = bench.compare(work, make(work, CACHE), systems, arguments.rounds)
        show(name, found[name])
    seen = {peer: versions(environment(peer, CACHE)) for peer in sorted({s.peer for s in systems if s.peer})}
    print(json.dumps({"precision": arguments.precision, "threads": arguments.threads, "works": found, "versions": seen}))


class Bench:
    """Runs tasks, and keeps what they found."""

    def __init__(self, results: Path, precision: str, threads: int) -> None:
        self.results, self.precision, self.threads = results, precision, threads
        package = HERE.parent / "src" / "campana"
        files = sorted(file for folder in TRAINER for file in (package / folder).rglob("*.[pc]*") if file.suffix in (".py", ".c"))
        self.version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        """Of campana's trainer: runs of another one are not this benchmark's."""

    def compare(self, work: Work, made: Made, systems: list[System], rounds: int) -> dict[str, Any]:
        """All systems on one work: medians, ratios, loss."""
        rivals = [s for s in systems if not s.packs or s.peer is None or self.is_clean(work, made, s)]
        for number in range(rounds):
            for system in rivals:
                self.task(work, made, system, f"round {number}", seed=number, save=True)
        rows = {s.name: self.summary(work, made, s, rounds) for s in rivals}
        contaminated = [s.name for s in systems if s not in rivals]
        return {"systems": rows, "contaminated": contaminated, **ratios(rows, {s.name for s in rivals if s.is_default})}

    def is_clean(self, work: Work, made: Made, system: System) -> bool:
        """Whether a packing setting keeps rows apart. One that cannot be run on this machine is none either."""
        proof = self.task(work, made, system, "proof", prove=True)
        worst = proof.get("worst_relative_difference")
        say(f"  proof       {system.name:28} rows {proof.get('rows')}, worst relative difference of a row's loss {worst}")
        return worst is not None and worst < CONTAMINATED

    def summary(self, work: Work, made: Made, system: System, rounds: int) -> dict[str, Any]:
        """The medians of a system's rounds."""
        runs = [self.task(work, made, system, f"round {number}", seed=number, save=True) for number in range(rounds)]
        good = [run for run in runs if "step_seconds" in run and not self.was_disturbed(run)]
        if not good:
            return {"error": runs[0].get("error", "every run was disturbed by other work: run it again on a quiet machine")}
        rates = [sum(run["step_tokens"]) / sum(run["step_seconds"]) for run in good]
        losses = [run["score"]["loss"] for run in runs if "loss" in run.get("score", {})]
        row: dict[str, Any] = {
            "tokens_per_second": statistics.median(rates),
            "tokens_per_second_each": rates,
            "num_disturbed": len(runs) - len(good),
            "cpu_seconds_per_1k_tokens": statistics.median(1e3 * sum(r["step_cpu_seconds"]) / sum(r["step_tokens"]) for r in good),
            "peak_memory_bytes": statistics.median(run["peak_memory_bytes"] for run in good),
            "optimizer_steps": good[0]["steps"],
            "trainable_parameters": good[0]["trainable_parameters"],
            "loss": statistics.mean(losses) if losses else None,
            "loss_each": losses,
        }
        meters = [run["meter"] for run in good if "meter" in run]
        if meters:
            row["share_of_matmul_rate"] = statistics.median(meter["utilisation"] for meter in meters)
            row["matmul_flops_per_second"] = statistics.median(meter["matmul_flops_per_second"] for meter in meters)
        return row

    def was_disturbed(self, run: dict[str, Any]) -> bool:
        """Whether other processes, or the host, took more than `OTHERS` of the machine during a run's steps.

        Where that cannot be told: whether the steps had less than `DISTURBED` of their threads (a trainer that leaves them idle loses too).
        """
        seconds = sum(run["step_seconds"])
        others = sum(run.get("step_other_seconds", [math.nan])) / seconds / (os.cpu_count() or 1)
        return sum(run["step_cpu_seconds"]) / seconds / self.threads < DISTURBED if math.isnan(others) else others > OTHERS

    def task(
        self, work: Work, made: Made, system: System, what: str, *, seed: int = 0, save: bool = False, prove: bool = False
    ) -> dict[str, Any]:
        """One run, or what is known of it from before."""
        version = self.version if system.peer is None else " ".join(PINS[system.peer])
        settled = hashlib.sha256(json.dumps([version, system.arguments(work, made)]).encode()).hexdigest()[:8]
        name = f"{work.name} x{work.factor} | {system.name} {settled} | {self.precision} | {self.threads} | {what}"
        known = self._known(name)
        if known is not None:
            return known
        with tempfile.TemporaryDirectory(prefix="campana-tuning-") as folder:
            scratch = Path(folder)
            out_dir = scratch / "out"
            out_dir.mkdir()
            task = {
                "model_dir": str(made.model_dir),
                "data_dir": str(made.data_dir),
                "out_dir": str(out_dir),
                "method": work.method,
                "rank": RANK,
                "alpha": ALPHA,
                "learning_rate": METHODS[work.method],
                "batch_tokens": made.batch_tokens,
                "precision": self.precision,
                "threads": self.threads,
                "seed": seed,
                "save": save,
                "prove": prove,
                "options": system.arguments(work, made),
            }
            python = Path(sys.executable) if system.peer is None else environment(system.peer, CACHE)
            found = self._run(python, HERE / "tuning_systems" / SCRIPTS[system.peer], [json.dumps(task)], scratch)
            if save and "step_seconds" in found:
                rows = made.data_dir / "validation.jsonl"
                score = HERE / "tuning_systems" / "score.py"
                found["score"] = self._run(Path(sys.executable), score, [str(made.model_dir), str(rows), str(out_dir / "model")], scratch)
        if "error" not in found:  # a failed run is tried again by the next call
            with self.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": name, **found}) + "\n")
        if "step_seconds" in found:
            rate = sum(found["step_tokens"]) / sum(found["step_seconds"])
            mark = "  disturbed: not counted" if self.was_disturbed(found) else ""
            say(f"  {what:11} {system.name:28} {rate:8.1f} tokens/s  {found['peak_memory_bytes'] / 1e9:5.2f} GB{mark}")
        elif "error" in found:
            say(f"  {what:11} {system.name:28} failed: {found['error'][-300:]}")
        return found

    def _known(self, name: str) -> dict[str, Any] | None:
        if not self.results.exists():
            return None
        rows = (json.loads(line) for line in self.results.read_text(encoding="utf-8").splitlines())
        return next((row for row in rows if row["name"] == name), None)

    def _run(self, python: Path, script: Path, words: list[str], scratch: Path) -> dict[str, Any]:
        """The JSON object that a script prints last; {"error"} where it fails."""
        command = [str(python), str(script), *words]
        try:
            own = task_environment() if python == Path(sys.executable) else {}  # as campana's tasks have it
            whole = {**own, **settings(self.threads, scratch)}
            done = subprocess.run(command, env=whole, cwd=scratch, capture_output=True, text=True, timeout=MOST_SECONDS, check=True)
        except subprocess.TimeoutExpired:
            return {"error": f"more than {MOST_SECONDS} s"}
        except subprocess.CalledProcessError as error:
            return {"error": error.stderr[-2000:]}
        return json.loads(done.stdout.splitlines()[-1])


def ratios(rows: dict[str, dict[str, Any]], defaults: set[str]) -> dict[str, Any]:
    """campana against the quickest of the peers' settings, and against each peer as it comes."""
    ours = rows.get("campana", {})
    others = {name: row for name, row in rows.items() if not name.startswith("campana") and "error" not in row}
    if "tokens_per_second" not in ours or not others:
        return {}
    rate = ours["tokens_per_second"]
    best = max(others, key=lambda name: others[name]["tokens_per_second"])
    found: dict[str, Any] = {
        "best_peer": best,
        "speed_against_best": rate / others[best]["tokens_per_second"],
        "memory_against_best": {
            name: row["peak_memory_bytes"] / others[best]["peak_memory_bytes"]
            for name, row in rows.items()
            if name.startswith("campana") and "error" not in row
        },
        "speed_against_defaults": {name: rate / row["tokens_per_second"] for name, row in others.items() if name in defaults},
    }
    if ours["loss"] is not None and others[best]["loss"] is not None:
        found["loss_against_best"] = ours["loss"] / others[best]["loss"]
        found["equal_loss"] = abs(found["loss_against_best"] - 1.0) <= EQUAL_LOSS
    return found


def growth(bench: Bench) -> Iterator[dict[str, Any]]:
    """campana alone: does time grow as rows do, and memory not at all? By rows of about 40 tokens; by length at one number of tokens."""
    import tuning_work

    made_of = tuning_work.Profile
    profiles = [(TINY, f"{rows} rows", made_of(40.0, 0.35, 24, -(-rows // 24)), PACK) for rows in GROWTH_ROWS]
    profiles += [
        ("smollm2", f"{n} tokens", made_of(float(n), 0.0, max(1, 4096 // n), GROWTH_TOKENS // max(n, 4096)), n) for n in GROWTH_LENGTHS
    ]
    for model, name, profile, longest in profiles:
        tuning_work.PROFILES[name] = profile
        tuning_work.PACK = longest
        work = Work(model, "lora", name)
        made = make(work, CACHE)
        run = bench.task(work, made, SYSTEMS[0], "growth")
        if "step_seconds" in run:
            rate = sum(run["step_tokens"]) / sum(run["step_seconds"])
            yield {"what": name, "tokens": made.tokens, "tokens_per_second": rate, "peak_memory_bytes": run["peak_memory_bytes"]}
        else:
            yield {"what": name, **run}


def show(name: str, found: dict[str, Any]) -> None:
    """A table of one work."""
    say(f"\n{name}")
    for system, row in found["systems"].items():
        if "error" in row:
            say(f"  {system:28} failed")
            continue
        each = ", ".join(f"{loss:.4f}" for loss in row["loss_each"])
        loss = "" if row["loss"] is None else f"  loss {row['loss']:.4f} ({each})"
        say(f"  {system:28} {row['tokens_per_second']:8.1f} tokens/s  {row['peak_memory_bytes'] / 1e9:5.2f} GB{loss}")
    if "speed_against_best" in found:
        against = ", ".join(f"{ratio:.2f}x {peer}" for peer, ratio in found["speed_against_defaults"].items())
        memory = ", ".join(f"{ratio:.2f} of its memory ({ours})" for ours, ratio in found["memory_against_best"].items())
        say(f"  campana: {found['speed_against_best']:.2f}x {found['best_peer']}, {memory}")
        say(f"  campana: {against or 'no defaults were run'}")


def say(text: str) -> None:
    """Tell the person; stdout is for the last line."""
    width = shutil.get_terminal_size((160, 24)).columns
    sys.stderr.write(text[: max(width, 160)] + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
