"""One task, one process: `python -m campana.worker work/<key>/task.json`. The same on a laptop, under torchrun and on a cluster.

It owns what a process is: its lock, its threads, where its output goes, and that it dies with its parent. The work itself is
`core.work`. On stdout it writes JSON lines: {"event": "progress", "done", "total", "unit", "figures"}, {"event": "failed", "error"},
{"event": "built"}; all that the stage prints goes to `log.txt` beside the task. Exit code 0: built; 1: failed; 2: the task cannot be read.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from campana.core.lock import KeyLock
from campana.core.ranks import run_ranks
from campana.core.store import Store
from campana.core.task import Task
from campana.core.work import LOG_NAME, perform, perform_rank
from campana.errors import CampanaError, StoreError
from campana.models.cache import default_cache_dir

BUILT, FAILED, WRONG = 0, 1, 2
PR_SET_PDEATHSIG = 1
WATCH_SECONDS = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Run one task; returns the exit code."""
    parser = argparse.ArgumentParser(prog="campana.worker", description="Build one stage.")
    parser.add_argument("task", type=Path, help="the task's JSON file")
    parser.add_argument("--lock-fd", type=int, default=None, help="open descriptor of the key's lock; without it the lock is taken here")
    parser.add_argument("--parent", type=int, default=None, help="process without which this one shall not live")
    parser.add_argument("--rank", action="store_true", help="started by torchrun, which says which rank this is")
    options = parser.parse_args(arguments)
    tell = _notices()
    try:
        parent: int | None = os.getppid() if options.rank else options.parent
        if parent is not None:
            _die_with(parent)
        return _build(options.task, options.lock_fd, options.rank, tell)
    except CampanaError as error:
        tell({"event": "failed", "error": str(error)})
        return WRONG


def _build(task_path: Path, lock_descriptor: int | None, is_rank: bool, tell: Callable[[Mapping[str, Any]], None]) -> int:
    task = Task.read(task_path)
    store = Store(Path(task.store))
    _limit_threads(max(1, task.resources.cores // task.resources.ranks))
    lock = None if is_rank else _lock(task, store, lock_descriptor)
    log_path = store.work_dir(task.key) / LOG_NAME
    cache_dir = default_cache_dir(os.environ)
    if lock is None:
        _log_to(log_path, 1, 2)
        return BUILT if perform_rank(task, store, int(os.environ["RANK"]), tell, cache_dir) else FAILED
    if task.resources.ranks > 1:
        _log_to(log_path, 2)  # stdout stays what the ranks inherit
        error = run_ranks(task_path, task, store, tell)
    else:
        _log_to(log_path, 1, 2)
        error = perform(task, store, tell, cache_dir=cache_dir)
    lock.release()
    if error is None:
        tell({"event": "built"})
    return BUILT if error is None else FAILED


def _lock(task: Task, store: Store, descriptor: int | None) -> KeyLock:
    if descriptor is not None:
        return store.adopt_lock(task.key, descriptor)
    lock = store.lock(task.key)
    if lock is None:
        raise StoreError("another process builds this now", where=task.label or task.key[:12], hint="wait until it has ended")
    return lock


def _notices() -> Callable[[Mapping[str, Any]], None]:
    """A function that writes JSON lines to what is stdout now. A reader that went away is no reason to stop."""
    descriptor = os.dup(1)
    guard = threading.Lock()

    def tell(row: Mapping[str, Any]) -> None:
        line = (json.dumps(row, default=str) + "\n").encode()
        with guard, contextlib.suppress(BrokenPipeError):
            while line:
                line = line[os.write(descriptor, line) :]

    return tell


def _log_to(path: Path, *descriptors: int) -> None:
    """Send what the stage and its libraries print to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    for standard in descriptors:
        os.dup2(descriptor, standard)
    os.close(descriptor)


def _limit_threads(cores: int) -> None:
    """Let numerical libraries use as many threads as the stage was given cores."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(cores)
    torch: Any = sys.modules.get("torch")
    if torch is not None:  # imported before this process was forked: the environment comes too late for it
        torch.set_num_threads(cores)


def _die_with(parent: int) -> None:
    """End this process when its parent does, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(FAILED)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(FAILED)

    if sys.platform != "linux":
        threading.Thread(target=watch, name="campana-parent", daemon=True).start()


def _leave(code: int) -> NoReturn:
    """End the process at once, after what was registered to be done at its end.

    Taking a torch-sized interpreter apart costs over a second, and more in a fork, where it copies every page that it touches.
    """
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] # as `multiprocessing` does in its children, there is no public name
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
