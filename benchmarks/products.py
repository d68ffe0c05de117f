"""float32 products by torch's own choice (MKL) and by oneDNN, and bf16 beside them: GFLOP/s and error, by shape; torch's fused attention in
float32 under both; and bf16 products whose weights come out of memory, plain and packed ahead, as in a pass over answers.

    python benchmarks/products.py [--seconds 0.1] [--rounds 5] [--threads 0]

Shapes are those of SmolLM2-135M's and MiniLM-L6's layers, for packs of tokens and for answers under way, and squares. The ways take turns
within a round; rates are medians over the rounds. The error is the largest against float64, as a share of the largest number. The last
line of output is one JSON object; `is_quick` is whether campana asks for oneDNN's on this machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from campana.models.prepacked import prepacked
from campana.models.products import asked_of_onednn, is_quick

LAYERS = ((8, 576, 1536), (128, 576, 1536), (128, 576, 49152), (2048, 576, 192), (2048, 576, 1536), (2048, 1536, 576), (2048, 384, 1536))
SQUARES = ((512, 512, 512), (2048, 2048, 2048))
"""Rows, inner, columns."""
BATCHED = (36, 128, 64, 128)
"""Products, rows, inner, columns: the scores of attention heads."""
ROWS = ((24, 45), (8, 250), (2, 1000))
"""Sequences and their length, with the heads of SmolLM2-135M."""
PASS_ROWS = (32, 64, 128, 192, 256, 320, 384, 768)
"""Answers under way, or tokens of a pass over prompts."""
PASS_LAYERS = 30
PASS_SHAPES = ((576, 576), (576, 192), (192, 576), (1536, 576), (576, 1536))
"""Outputs and inputs of the layers' matrices: so many layers' together do not fit a cache."""


def main() -> None:
    """Measure every shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    shapes = {" x ".join(map(str, shape)): measured(shape, arguments.seconds, arguments.rounds) for shape in (*LAYERS, *SQUARES, BATCHED)}
    fused = {f"{rows} x {length} tokens": attention(rows, length, arguments.seconds, arguments.rounds) for rows, length in ROWS}
    passes = {f"{rows} rows": packed_ahead(rows, arguments.seconds, arguments.rounds) for rows in PASS_ROWS}
    for name, row in {**shapes, **fused, **passes}.items():
        print(f"{name:20} {json.dumps(row)}", file=sys.stderr)
    told = {"threads": torch.get_num_threads(), "torch": torch.__version__, "is_quick": is_quick()}
    print(json.dumps({**told, "shapes": shapes, "fused_attention_ms": fused, "bf16_pass": passes}))


def measured(shape: tuple[int, ...], seconds: float, rounds: int) -> dict[str, Any]:
    """GFLOP/s of each way, and how much faster oneDNN is."""
    *batch, rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(*batch, rows, inner, generator=generator)
    right = torch.randn(*batch, columns, inner, generator=generator)
    exact = left.double() @ right.double().transpose(-1, -2)
    short = left.bfloat16(), right.bfloat16()
    ways = {"torch": (nullcontext, left, right), "oneDNN": (asked_of_onednn, left, right), "bf16": (nullcontext, *short)}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    errors: dict[str, float] = {}
    flops = 2.0 * rows * inner * columns * (batch[0] if batch else 1)
    for _ in range(rounds):
        for name, (way, one, other) in ways.items():
            product = product_of(one, other)
            with way():
                errors[name] = float((product().double() - exact).abs().max() / exact.abs().max())
                rates[name].append(flops / time_of(product, seconds) / 1e9)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    told: dict[str, Any] = {name: round(rate) for name, rate in medians.items()}
    return {
        **told,
        "times": round(medians["oneDNN"] / medians["torch"], 2),
        "errors": {name: float(f"{e:.1e}") for name, e in errors.items()},
    }


def attention(rows: int, length: int, seconds: float, rounds: int) -> dict[str, float]:
    """Milliseconds of causal attention, forward and backward: medians."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(rows, heads, length, 64, generator=generator, requires_grad=True) for heads in (9, 3, 3))
    wanted = torch.randn(rows, 9, length, 64, generator=generator)

    def run() -> None:
        torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).backward(wanted)

    ways: dict[str, Callable[[], AbstractContextManager[None]]] = {"torch": nullcontext, "oneDNN": asked_of_onednn}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            with way():
                times[name].append(1e3 * time_of(run, seconds))
    return {name: round(statistics.median(each), 1) for name, each in times.items()}


def packed_ahead(rows: int, seconds: float, rounds: int) -> dict[str, float]:
    """GFLOP/s of all layers' bf16 products, one after the other, with plain weights and with packed ones; medians."""
    plain, lent = (
        torch.nn.ModuleList(torch.nn.Linear(i, o, bias=False).bfloat16() for _ in range(PASS_LAYERS) for o, i in PASS_SHAPES)
        for _ in range(2)
    )
    inputs = {i: torch.randn(rows, i).bfloat16() for _, i in PASS_SHAPES}
    flops = 2.0 * rows * PASS_LAYERS * sum(o * i for o, i in PASS_SHAPES)
    rates: dict[str, list[float]] = {"plain": [], "packed": []}
    with torch.no_grad(), prepacked(lent) as weights:
        ways: dict[str, Callable[[], object]] = {
            "plain": lambda: [layer(inputs[layer.in_features]) for layer in plain],
            "packed": lambda: [weights.product(layer, inputs[layer.in_features]) for layer in lent],
        }
        for _ in range(rounds):
            for name, way in ways.items():
                rates[name].append(flops / time_of(way, seconds) / 1e9)
    told = {name: statistics.median(each) for name, each in rates.items()}
    return {**{name: round(rate) for name, rate in told.items()}, "times": round(told["packed"] / told["plain"], 2)}


def product_of(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    """As a layer does it, or as attention does."""
    if left.dim() == 2:
        return lambda: torch.nn.functional.linear(left, right)
    return lambda: torch.bmm(left, right.transpose(-1, -2))


def time_of(product: Callable[[], object], seconds: float) -> float:
    """Seconds of one call: the mean over `seconds`."""
    product()
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        product()
        count += 1
    return passed / count


if __name__ == "__main__":
    main()
