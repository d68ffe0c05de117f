"""Float32 matrix products by oneDNN, where its kernels are as exact as those that torch takes by itself, and faster.

    with quick_products():
        out = torch.mm(weight, x)      # as everywhere else where oneDNN would be no faster, or less exact

torch gives float32 products to MKL, which on AMD cores with AVX-512 reaches 0.4 (Zen 5) to 0.9 (Zen 4) of oneDNN's rate
(benchmarks/NOTES.md, Products). torch asks oneDNN only where it may round to bf16 on the way, so that is what is asked for. Cores without
matrix tiles (AMX) have nothing that would round: the products stay float32, which is not believed but tried before it is used.

Not for torch's fused attention over short rows: it becomes up to five times as slow, since its many small products go the same way (and
which library makes them would depend on the size of the batch). So who asks for a whole pass takes it out again:

    with quick_products():
        loss.backward()                    # and within attention's own gradient:
            with torchs_products(): ...
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
ROUNDING = 4e-6
"""Largest error of a float32 product, as a share of its largest number. Measured: 1e-6; with factors rounded to bf16: 2e-3."""
TRIED_SHAPES = ((8, 576, 1536), (200, 1536, 576), (512, 512, 512), (37, 64, 129))
"""Rows, inner, columns: short and long, and none that fits a kernel's blocks."""


@contextmanager
def asked_of_onednn() -> Generator[None]:
    """Within it torch asks oneDNN for float32 products, however it would round them. The setting is the process's."""
    with _asked("bf16"):
        yield


@contextmanager
def _asked(precision: str) -> Generator[None]:
    import torch

    chooser: Any = torch.backends.mkldnn
    before = chooser.matmul.fp32_precision
    chooser.matmul.fp32_precision = precision
    try:
        yield
    finally:
        chooser.matmul.fp32_precision = before


class _Shared:
    """A setting of the process that several threads may be within at once: the first sets it, the last gives it back."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._setting = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._setting.enter_context(asked_of_onednn())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._setting.close()


_ASKED = _Shared()


def quick_products() -> AbstractContextManager[None]:
    """Within it oneDNN makes float32 products, where `is_quick()`. The setting is the process's, until the last thread has left."""
    return _ASKED if is_quick() else nullcontext()


@contextmanager
def torchs_products() -> Generator[None]:
    """Within it torch chooses by itself, as if nothing had been asked for. The setting is the process's."""
    with _asked("none"):
        yield


@cache
def is_quick() -> bool:
    """Whether oneDNN's float32 products are worth asking for on this machine: MKL is slow here, and they are exact."""
    import torch

    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and mkl_is_slow(CPU_INFO)):
        return False
    with asked_of_onednn():
        return largest_error() < ROUNDING


def mkl_is_slow(cpu_info: Path) -> bool:
    """Whether the first core is AMD's with AVX-512 and without AMX; no where the file is absent (not Linux)."""
    if not cpu_info.is_file():
        return False
    core, _, _ = cpu_info.read_text().partition("\n\n")
    words = set(core.split())
    return {"AuthenticAMD", "avx512f"} <= words and not any(word.startswith("amx") for word in words)


def largest_error() -> float:
    """The largest error of float32 products in the forms of layers and their gradients, against float64 and as a share of the largest."""
    import torch

    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for rows, inner, columns in TRIED_SHAPES:
        x_RI = torch.randn(rows, inner, generator=generator)
        weight_CI = torch.randn(columns, inner, generator=generator)
        grad_RC = torch.randn(rows, columns, generator=generator)
        bias_C1 = torch.randn(columns, 1, generator=generator)
        x, weight, grad, bias = (each.double() for each in (x_RI, weight_CI, grad_RC, bias_C1))
        found_and_exact = (
            (torch.mm(weight_CI, x_RI.t()), weight @ x.T),
            (torch.addmm(bias_C1, weight_CI, x_RI.t()), weight @ x.T + bias),
            (torch.nn.functional.linear(x_RI, weight_CI, bias_C1[:, 0]), x @ weight.T + bias.T),
            (grad_RC @ weight_CI, grad @ weight),
            (grad_RC.t() @ x_RI, grad.T @ x),
            (weight_CI.clone().addmm_(grad_RC.t(), x_RI, alpha=0.5), weight + 0.5 * grad.T @ x),
        )
        for found, exact in found_and_exact:
            worst = max(worst, float((found - exact).abs().max() / exact.abs().max()))
    return worst
