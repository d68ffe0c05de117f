"""What a task's process finds in its environment. What the person has set stays.

subprocess.Popen(argv, env=task_environment())
start_anew()  # first of all, in a program that does a task's work itself
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

SPINS = "5000"
"""How often an OpenMP thread looks before it gives its core up. By default it looks so long that two threads that share their cores
with other work do half of what they could; this costs nothing on an idle machine (`benchmarks/NOTES.md`)."""
PRIMITIVES = "32"
"""Products that oneDNN keeps ready. A pack or a step has fewer, and every length asks for its own: the 1,024 that it keeps by default are
mostly of packs that will not come again, and a seventh of a small run's memory (`benchmarks/NOTES.md`)."""
WRAPPED = "32"
"""Products that torch keeps beside those, readied oneDNN ones with their programs, of 1,024. Each holds half a megabyte: a training of
readers, whose steps are all of other lengths, held 0.3 GB of them (`benchmarks/NOTES.md`)."""
MIMALLOC = "cmeel.prefix/lib/libmimalloc.so"


def task_environment() -> dict[str, str]:
    """The environment of a new process that runs tasks."""
    kept = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": PRIMITIVES, "LRU_CACHE_CAPACITY": WRAPPED}
    return {"GOMP_SPINCOUNT": SPINS, **kept, **_allocator(), **os.environ}


def start_anew() -> None:
    """Start this program again with a task's environment, which only a new process can take on; return where it has it already."""
    wanted = task_environment()
    if any(name not in os.environ for name in wanted):
        os.execve(sys.executable, sys.orig_argv, wanted)


def _allocator() -> dict[str, str]:
    """mimalloc in place of the C library's `malloc`, and that it keeps what is freed. {} where it is not installed.

    Steps take and free large tensors of ever other sizes. Between them glibc leaves holes that nothing fits, and grows with the
    steps; mimalloc does not (`benchmarks/NOTES.md`, Allocators).
    """
    try:
        library = Path(str(distribution("cmeel-mimalloc").locate_file(MIMALLOC)))
    except PackageNotFoundError:
        return {}
    separated = any(sign in str(library) for sign in ": \t\n")  # LD_PRELOAD cannot name such a path
    return {"LD_PRELOAD": str(library), "MIMALLOC_PURGE_DELAY": "-1"} if library.is_file() and not separated else {}
