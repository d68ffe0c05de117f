"""Whom torch asks for float32 matrix products.

    with asked_of_onednn():
        scores = torch.bmm(queries.float(), keys.float())     # factors that were bf16 lose nothing in it

torch gives float32 products to its BLAS, and to oneDNN only where it may round the factors to bf16 on the way (a processor with
matrix tiles does, others do not). So this is for factors that are bf16 numbers already, and for machines where the products were tried
(`generation.products`). The setting is the process's: not for code of several threads.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def asked_of_onednn() -> Generator[None]:
    """Within it torch asks oneDNN for float32 products, however it would round them."""
    import torch

    chooser: Any = torch.backends.mkldnn
    before = chooser.matmul.fp32_precision
    chooser.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        chooser.matmul.fp32_precision = before
