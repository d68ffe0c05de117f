"""Which library multiplies float32 matrices in this process: torch's own choice, or oneDNN's kernels where they are as exact and faster.

    choose_products()            # "oneDNN" or "torch"; every loader of a model calls it, the first call decides
    with plain_products(): ...   # torch's own choice while it lasts

torch gives float32 products to MKL, which uses half of what AMD cores with AVX-512 have: oneDNN is 1.1 (Zen 4) to 2.3 (Zen 5) times as fast
(benchmarks/NOTES.md, Products). torch asks oneDNN only where it may round to bf16 on the way, so that is what is asked for. Cores without
matrix tiles (AMX) have nothing that would round: the products stay float32, which is not believed but tried before anything is chosen.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

CPU_INFO = Path("/proc/cpuinfo")
ROUNDING = 4e-6
"""Largest error of a float32 product, as a share of its largest number. Measured: 1e-6; with factors rounded to bf16: 2e-3."""
TRIED_SHAPES = ((8, 576, 1536), (200, 1536, 576), (512, 512, 512), (37, 64, 129))
"""Rows, inner, columns: short and long, and none that fits a kernel's blocks."""


@cache
def choose_products() -> Literal["oneDNN", "torch"]:
    """Choose for the whole process. Any torch process may call it at any time; the numbers of a product move by its rounding at most."""
    import torch

    chooser: Any = torch.backends.mkldnn
    if not (torch.backends.mkl.is_available() and chooser.is_available() and mkl_is_slow(CPU_INFO)):
        return "torch"
    before = chooser.matmul.fp32_precision
    chooser.matmul.fp32_precision = "bf16"
    if largest_error() < ROUNDING:
        return "oneDNN"
    chooser.matmul.fp32_precision = before
    return "torch"


@contextmanager
def plain_products() -> Generator[None]:
    """Within it torch makes products as it does by itself. For small ones, which torch gives to oneDNN from a size on (4,096
    multiplications, the whole batch counted): there the library, and so the rounding of a row, would depend on what else is in its batch.
    """
    import torch

    chooser: Any = torch.backends.mkldnn
    chosen = chooser.matmul.fp32_precision
    chooser.matmul.fp32_precision = "none"
    try:
        yield
    finally:
        chooser.matmul.fp32_precision = chosen


def mkl_is_slow(cpu_info: Path) -> bool:
    """Whether the first core is AMD's with AVX-512 and without AMX; no where the file is absent (not Linux)."""
    if not cpu_info.is_file():
        return False
    core, _, _ = cpu_info.read_text().partition("\n\n")
    words = set(core.split())
    return {"AuthenticAMD", "avx512f"} <= words and not any(word.startswith("amx") for word in words)


def largest_error() -> float:
    """The largest error of the tried float32 products, plain and in batches, against float64; as a share of the largest number."""
    import torch

    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for rows, inner, columns in TRIED_SHAPES:
        left_RI = torch.randn(rows, inner, generator=generator)
        right_CI = torch.randn(columns, inner, generator=generator)
        exact_RC = left_RI.double() @ right_CI.double().T
        batches_BRC = torch.bmm(left_RI.expand(2, -1, -1), right_CI.T.expand(2, -1, -1))
        for found in (torch.nn.functional.linear(left_RI, right_CI), left_RI @ right_CI.T, *batches_BRC):
            worst = max(worst, float((found - exact_RC).abs().max() / exact_RC.abs().max()))
    return worst
