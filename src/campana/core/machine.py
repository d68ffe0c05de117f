"""How big this machine is: the cores and the memory that a run may use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from campana.core.spec import Resources

CGROUP = Path("/sys/fs/cgroup")


def this_machine() -> Resources:
    """The cores that this process may use and the memory of the machine or of its container, in bytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        memory = min(memory, int((CGROUP / "memory.max").read_text()))
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        cores = max(1, min(cores, int(quota) // int(period)))
    return Resources(cores=cores, memory_bytes=memory)
