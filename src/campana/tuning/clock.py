"""Where a run's time and memory go. The only place of the trainer that looks at a clock: no time enters a result file.

clock = Clock()
with clock("train"):
    ...
clock.seconds["train"]
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


class Clock:
    """Seconds by phase, added up."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Generator[None]:
        """Charge the block to a phase, whether it ends well or not."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start


def peak_memory_bytes() -> int:
    """The most memory this process has held: on CUDA what torch has allocated, else resident memory of the process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # VmHWM, not ru_maxrss: the latter survives exec and can be the parent's
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found.group(1)) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def matmul_flops_per_second(precision: str) -> float:
    """What this machine's matrix products reach now: the best of a few 512 x 512 x 512 products, in operations a second."""
    import torch

    from campana.models.products import quick_products

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = 512
    left, right = (torch.full((size, size), 0.5, dtype=dtype, device=device) for _ in range(2))
    best = 0.0
    spent = 0.0
    with quick_products():
        for _ in range(16):
            start = time.perf_counter()
            torch.mm(left, right)
            if device == "cuda":
                torch.cuda.synchronize()
            elapsed = time.perf_counter() - start
            best = max(best, 2 * size**3 / elapsed)
            spent += elapsed
            if spent > 0.1:
                break
    return best
