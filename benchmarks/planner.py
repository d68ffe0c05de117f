"""How good the planner is: `python benchmarks/planner.py [STUDY]` predicts a study, runs it in a fresh store, and compares.

The default is `studies/quickstart.yaml`. The calibration is made anew unless `--keep-calibration`; downloads come from the usual cache.
Run it on a quiet machine: the probe and the run must see the same machine. The last line is one JSON object: ratios predicted / actual of
each kind of stage (count, median, worst) for seconds, memory and disk, the whole study's, and whether the issue's targets (time within
15%, memory within 10%) hold for the medians and for every tuning and answering stage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from campana.models.cache import default_cache_dir

HERE = Path(__file__).parent
TARGETS = {"seconds": 0.15, "memory_bytes": 0.10}
WORKING = ("tune", "generate", "read_train", "read_answer")


def campana(*words: str, environment: dict[str, str]) -> str:
    """One command; its stdout. Its talk is shown."""
    argv = [sys.executable, "-m", "campana", *words]
    return subprocess.run(argv, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def private_cache(folder: Path) -> Path:
    """A cache that shares the downloads with the usual one and nothing else."""
    usual, own = default_cache_dir(os.environ), folder / "cache"
    own.mkdir()
    for source in ("pypi", "wheels"):
        (usual / source).mkdir(parents=True, exist_ok=True)
        (own / source).symlink_to((usual / source).resolve())
    return own


def within(ratio: float | None, share: float) -> bool:
    """Whether a prediction is at most so far from what came."""
    return ratio is not None and abs(ratio - 1) <= share


def compare(study: Path, folder: Path, *, keep: bool) -> dict[str, Any]:
    """Plan, run, read the report."""
    cache = default_cache_dir(os.environ) if keep else private_cache(folder)
    environment = {**os.environ, "CAMPANA_CACHE": str(cache)}
    store = str(folder / "store")
    begun = time.perf_counter()
    planned = json.loads(campana("plan", str(study), "--store", store, "--json", environment=environment))
    plan_seconds = time.perf_counter() - begun
    campana("run", str(study), "--store", store, "--output", str(folder / "report"), environment=environment)
    forecast = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))["measured"]["forecast"]
    sums = {side: sum(line["seconds"][side] or 0 for line in forecast["stages"]) for side in ("predicted", "actual")}
    working = [line for line in forecast["stages"] if line["kind"] in WORKING]
    return {
        "study": study.name,
        "plan_seconds": round(plan_seconds, 1),
        "unknown": planned["forecast"]["unknown"],
        "kinds": forecast["kinds"],
        "study_seconds": {**sums, "ratio": sums["predicted"] / sums["actual"]},
        "medians_within": {
            name: all(within(forecast["kinds"][kind][name]["median"], share) for kind in WORKING if kind in forecast["kinds"])
            for name, share in TARGETS.items()
        },
        "stages_within": {
            name: f"{sum(within(line[name]['ratio'], share) for line in working)} of {len(working)}" for name, share in TARGETS.items()
        },
        "stages": {line["label"]: {name: line[name]["ratio"] for name in TARGETS} for line in working},
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description="Predicted against actual.")
    parser.add_argument("study", type=Path, nargs="?", default=HERE.parent / "studies" / "quickstart.yaml")
    parser.add_argument("--keep-calibration", action="store_true", help="use what is in the cache instead of measuring anew")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(compare(options.study, Path(name), keep=options.keep_calibration)))


if __name__ == "__main__":
    main()
