"""Settings of the process that measured as worth having. Nothing here moves a number of the result.

keep_memory()
"""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_KEPT = 1 << 30


def keep_memory() -> None:
    """Ask glibc to keep freed blocks of up to 1 GB instead of giving them back to the kernel.

    Every step frees and takes the same large tensors; by default each is a fresh mapping whose pages fault in one by one: 300,000
    faults and 16% of the CPU time of a step on SmolLM2-135M (benchmarks/NOTES.md, Tuning). Tasks have mimalloc, which keeps them
    without glibc's holes (`executors.environment`); this is for who trains in a process without it. On another C library: does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
