"""The probe in a process of its own, so that whoever asks for a prediction never loads torch.

code = probe_in_subprocess(Path("study.yaml"), Path(".campana"), cache_dir)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from campana.core.machine import this_machine
from campana.executors.environment import task_environment

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS")
"""As `campana.worker` sets them for a stage."""


def probe_in_subprocess(study_path: Path, store_path: Path, cache_dir: Path) -> int:
    """The same in an interpreter of its own, so that the caller never loads torch; talk goes to stderr. Returns its exit code."""
    cores = str(this_machine().cores)
    environment = {**task_environment(), **dict.fromkeys(THREADS, cores)}
    argv = [sys.executable, "-m", "campana.forecast.probe", str(study_path), "--store", str(store_path), "--cache", str(cache_dir)]
    return subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode
