"""Settings of the process that measured as worth having. Nothing here moves a number of the result.

memory = keep_memory()  # or return_memory()
for step in steps:
    ...
    memory.after_step()
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_KEPT = 1 << 30
SMALLEST_MAPPING = 1_000_000
GROWTH = 1.15
"""Kept blocks are given back once the process holds so much more than it needed."""
REST = 20
"""Steps between two times, at least: what is given back must be taken anew, page by page."""


@dataclass
class KeptMemory:
    """Freed blocks that the process keeps, and when it gives them back."""

    libc: Any
    """None where there is nothing to do."""
    level: int = 0
    """Resident bytes that steps are known to need."""
    steps: int = 0
    """Since blocks were given back."""

    def after_step(self) -> None:
        """Give all free blocks back where too many have gathered: tensors of ever other sizes leave holes that the next ones do not fit."""
        if self.libc is None:
            return
        self.steps += 1
        resident = resident_bytes()
        if self.steps == 1:  # after the first step, and the first since blocks were given back: this is what one needs
            self.level = max(self.level, resident)
        elif self.steps >= REST and resident > GROWTH * self.level:
            self.libc.malloc_trim(0)
            self.steps = 0


def keep_memory() -> KeptMemory:
    """Ask glibc to keep freed blocks of up to 1 GB instead of giving them back to the kernel.

    Every step frees and takes the same large tensors; by default each is a fresh mapping whose pages fault in one by one: 300,000
    faults and 16% of the CPU time of a step on SmolLM2-135M (benchmarks/NOTES.md, Tuning). On another C library: does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        if hasattr(libc, "malloc_trim") and Path("/proc/self/statm").exists():
            return KeptMemory(libc)
    return KeptMemory(None)


def return_memory() -> KeptMemory:
    """The other way round, for one of several ranks: each block of 1 MB or more is a mapping of its own and goes back once it is freed.

    FSDP takes and frees every layer's weights, gradients and messages in turn, and what is kept of them are holes that nothing else
    fits: 2.6 GB of a rank's 4.9. Ranks are there to hold less each; steps are up to a third slower (benchmarks/NOTES.md, Several ranks).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, SMALLEST_MAPPING)
    return KeptMemory(None)


def resident_bytes() -> int:
    """Memory that this process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
