"""float32 products by torch's own choice (MKL) and by oneDNN, and bf16 beside them: GFLOP/s and error, by shape.

    python benchmarks/products.py [--seconds 0.1] [--rounds 5] [--threads 0]

Shapes are those of SmolLM2-135M's and MiniLM-L6's layers, for packs of tokens and for answers under way, and squares. The ways take turns
within a round; rates are medians over the rounds. The error is the largest against float64, as a share of the largest number. The last
line of output is one JSON object; `chosen` is what campana takes on this machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from campana.models.products import choose_products, plain_products

LAYERS = ((8, 576, 1536), (128, 576, 1536), (128, 576, 49152), (2048, 576, 192), (2048, 576, 1536), (2048, 1536, 576), (2048, 384, 1536))
SQUARES = ((512, 512, 512), (2048, 2048, 2048))
"""Rows, inner, columns."""
BATCHED = (36, 128, 64, 128)
"""Products, rows, inner, columns: the scores of attention heads."""


def main() -> None:
    """Measure every shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with plain_products():
        chosen = choose_products()
        shapes = {
            " x ".join(map(str, shape)): measured(shape, arguments.seconds, arguments.rounds) for shape in (*LAYERS, *SQUARES, BATCHED)
        }
    for name, row in shapes.items():
        print(f"{name:20} {json.dumps(row)}", file=sys.stderr)
    print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, "chosen": chosen, "shapes": shapes}))


def measured(shape: tuple[int, ...], seconds: float, rounds: int) -> dict[str, Any]:
    """GFLOP/s of each way, and how much faster oneDNN is."""
    *batch, rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(*batch, rows, inner, generator=generator)
    right = torch.randn(*batch, columns, inner, generator=generator)
    exact = left.double() @ right.double().transpose(-1, -2)
    pairs = {"torch": (left, right), "oneDNN": (left, right), "bf16": (left.bfloat16(), right.bfloat16())}
    rates: dict[str, list[float]] = {name: [] for name in pairs}
    errors: dict[str, float] = {}
    flops = 2.0 * rows * inner * columns * (batch[0] if batch else 1)
    for _ in range(rounds):
        for name, (one, other) in pairs.items():
            torch.backends.mkldnn.matmul.fp32_precision = "bf16" if name == "oneDNN" else "none"  # pyright: ignore[reportAttributeAccessIssue]  # not in torch's types
            product = product_of(one, other)
            errors[name] = float((product().double() - exact).abs().max() / exact.abs().max())
            rates[name].append(flops / time_of(product, seconds) / 1e9)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    told: dict[str, Any] = {name: round(rate) for name, rate in medians.items()}
    return {
        **told,
        "times": round(medians["oneDNN"] / medians["torch"], 2),
        "errors": {name: float(f"{e:.1e}") for name, e in errors.items()},
    }


def product_of(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    """As a layer does it, or as attention does."""
    if left.dim() == 2:
        return lambda: torch.nn.functional.linear(left, right)
    return lambda: torch.bmm(left, right.transpose(-1, -2))


def time_of(product: Callable[[], torch.Tensor], seconds: float) -> float:
    """Seconds of one product: the mean over `seconds`."""
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        product()
        count += 1
    return passed / count


if __name__ == "__main__":
    main()
