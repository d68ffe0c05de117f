"""The ranks of one task: as many processes of the worker, started by torchrun's launcher, and what became of them.

    error = run_ranks(task_path, task, store, tell)      # None: built

It owns how the end of several processes becomes one reason. A rank that dies takes the others down with it: their own errors then
speak of a lost connection, so the rank that ended without a word, or spoke first, is the one that is told. The try stays, with its
checkpoints, for the next one. The caller holds the key's lock and lives as long as the ranks do.
"""

from __future__ import annotations

import signal
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from campana.core.disk import read_json, remove_folder
from campana.core.store import Store
from campana.core.task import Task
from campana.core.work import Tell, fail, rank_mark


def run_ranks(task_path: Path, task: Task, store: Store, tell: Tell) -> str | None:
    """Run the worker once a rank, until all have ended. Returns None, or why the stage failed, in words for a person."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    start = time.monotonic()
    work = store.work_dir(task.key)
    _clear(task, store)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=task.resources.ranks,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(work / "torchrun")),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "campana.worker", str(task_path), "--rank")
    except ChildFailedError as error:
        message = reason({rank: failure.exitcode for rank, failure in error.failures.items()}, _notes(task, store))
        fail(task, store, time.monotonic() - start, message, tell)
        return message
    return None


def reason(codes: Mapping[int, int], notes: Mapping[int, Mapping[str, Any]]) -> str:
    """Why the ranks ended. `codes`: of those that failed, negative for a signal; `notes`: {"time", "error"} of those that spoke."""
    silent = [rank for rank, code in sorted(codes.items()) if rank not in notes and code != -signal.SIGTERM]  # torchrun ends the rest so
    if silent:
        return _end_in_words(silent[0], codes[silent[0]])
    if notes:
        rank, note = min(notes.items(), key=lambda entry: entry[1]["time"])
        return str(note["error"]) if rank == 0 else f"rank {rank}: {note['error']}"
    return "its ranks were ended by SIGTERM"


def _end_in_words(rank: int, code: int) -> str:
    again = "run the same command again to go on from the last checkpoint"
    if code == -signal.SIGKILL:
        return f"rank {rank} was killed by SIGKILL\nhint: was the machine out of memory? `dmesg` would say; {again}"
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code} and without a word"
    return f"rank {rank} {how}\nhint: the task's log.txt may say why; {again}"


def _clear(task: Task, store: Store) -> None:
    """Nothing of an earlier try may be taken for this one's."""
    remove_folder(store.work_dir(task.key) / "object")
    remove_folder(store.work_dir(task.key) / "torchrun")
    for rank in range(task.resources.ranks):
        for word in ("done", "failed"):
            rank_mark(store, task, rank, word).unlink(missing_ok=True)


def _notes(task: Task, store: Store) -> dict[int, dict[str, Any]]:
    """What the ranks that failed have left, by rank."""
    paths = {rank: rank_mark(store, task, rank, "failed") for rank in range(task.resources.ranks)}
    return {rank: read_json(path) for rank, path in paths.items() if path.exists()}
