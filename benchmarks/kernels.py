"""The compiled operations against torch's own, in bf16 or fp32: attention by length, forward and backward, of one new token of each
answer, and what stands between products.

    python benchmarks/kernels.py [--precision bf16] [--rounds 5]

Both compute the same numbers in alternating rounds; figures are medians of milliseconds and their ratio, errors are relative to float64.
Attention's rate counts the products that causality asks for. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from campana.executors.environment import start_anew
from campana.generation.kv import PAGE, SLAB, pages_for
from campana.models.cache import default_cache_dir
from campana.native.compiled import Compiled
from campana.native.tokens import Tokens
from campana.tuning.attention import Pattern, SegmentAttention
from campana.tuning.fused import RmsNorm, SwiGlu
from campana.tuning.head import OutputLayer
from campana.tuning.segments import Segments

ATTENTION = [
    (24, 45, 9, 3, 64),
    (12, 150, 9, 3, 64),
    (6, 300, 9, 3, 64),
    (3, 512, 9, 3, 64),
    (2, 1000, 9, 3, 64),
    (1, 2048, 9, 3, 64),
    (1, 4096, 9, 3, 64),
    (24, 45, 4, 1, 256),
    (6, 300, 4, 1, 256),
    (1, 2048, 4, 1, 256),
]
"""Segments, their tokens, query heads, key heads, head size: SmolLM2's and Gemma 3 270M's."""

STEPS = [(256, 60, 30), (256, 100, 30), (32, 1000, 30)]
"""Answers under way, their tokens, layers: so many that keys and values come from memory, as in a step of a model."""

Call = Callable[[], Any]


def main() -> None:
    start_anew()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    arguments = parser.parse_args()
    rounds, compiled = arguments.rounds, Compiled.load(arguments.precision, default_cache_dir())
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    for shape in ATTENTION:
        found[f"attention {shape[0]} x {shape[1]}, heads {shape[2]}/{shape[3]} of {shape[4]}"] = attention(compiled, shape, rounds)
    for shape in STEPS:
        found[f"a step, {shape[0]} answers of {shape[1]}, layers {shape[2]}"] = step(compiled, shape, rounds)
    found |= between(compiled, rounds)
    for name, each in found.items():
        print(f"{name:45} {each}", file=sys.stderr)
    print(
        json.dumps(
            {"precision": arguments.precision, "threads": torch.get_num_threads(), "torch": torch.__version__, "milliseconds": found}
        )
    )


def attention(compiled: Compiled, shape: tuple[int, int, int, int, int], rounds: int) -> dict[str, Any]:
    """torch's kernel as the trainer calls it where there is no compiled code, and the compiled one, on the same pack."""
    count, length, heads, kv_heads, size = shape
    segments, scale = Segments.of([length] * count), size**-0.5
    q, k, v, grad = (torch.randn(count * length, n, size).to(compiled.dtype) for n in (heads, kv_heads, kv_heads, heads))
    pattern = Pattern(segments, scale, None)
    ours, bounds = compiled.attention, segments.boundaries
    out, lse = ours.forward(q, k, v, bounds, scale=scale, window=None)

    def backward_of_ours() -> tuple[Tensor, ...]:
        return ours.backward(grad, q, k, v, out, lse, bounds, scale=scale, window=None)

    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    result: Any = SegmentAttention.apply(*inputs, pattern)
    exact_inputs = [x.detach().double().requires_grad_() for x in (q, k, v)]
    exact_out: Any = SegmentAttention.apply(*exact_inputs, pattern)
    exact = (exact_out.detach(), *torch.autograd.grad(exact_out, exact_inputs, grad.double()))
    calls: dict[str, tuple[Call, Call]] = {
        "forward": (
            lambda: SegmentAttention.apply(q, k, v, pattern),
            lambda: ours.forward(q, k, v, bounds, scale=scale, window=None),
        ),
        "backward": (lambda: torch.autograd.grad(result, inputs, grad, retain_graph=True), backward_of_ours),
    }
    flop = count * heads * size * length * (length + 1) / 2 * 4
    told: dict[str, Any] = {}
    for name, pair in calls.items():
        theirs, mine = compared(pair, rounds)
        products = 1.0 if name == "forward" else 2.5
        told[name] = {**times(theirs, mine), "gflop_per_second": round(flop * products / mine / 1e6)}
    their_grads = torch.autograd.grad(result, inputs, grad)
    told["errors"] = {
        "torch": [error(a, b) for a, b in zip((result.detach(), *their_grads), exact, strict=True)],
        "compiled": [error(a, b) for a, b in zip((out, *backward_of_ours()), exact, strict=True)],
    }
    return told


def step(compiled: Compiled, shape: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """A layer of SmolLM2-135M: torch's kernel over keys and values that lie together, all of one length, and ours over pages."""
    rows, length, layers = shape
    heads, kv_heads, size = 9, 3, 64
    own = pages_for(length + 1)
    pages = torch.randperm(rows * own).int().view(rows, own)
    key_page = (size, PAGE) if isinstance(compiled.step, Tokens) else (PAGE, size)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape).to(compiled.dtype)

    slabs = [
        [(numbers(SLAB, kv_heads, *key_page), numbers(SLAB, kv_heads, PAGE, size)) for _ in range(-(-rows * own // SLAB))]
        for _ in range(layers)
    ]
    whole = [(numbers(rows, kv_heads, length + 1, size), numbers(rows, kv_heads, length + 1, size)) for _ in range(layers)]
    query, key, value = (numbers(rows, n, size) for n in (heads, kv_heads, kv_heads))
    lengths, rows_R = torch.full((rows,), length), torch.arange(rows, dtype=torch.int32)
    places = pages[:, length // PAGE].long() * PAGE + length % PAGE

    def of_torch() -> None:
        for keys, values in whole:
            keys[:, :, length], values[:, :, length] = key, value
            torch.nn.functional.scaled_dot_product_attention(query[:, :, None], keys, values, scale=0.125, enable_gqa=True)

    def of_ours() -> None:
        for layer in slabs:
            if isinstance(compiled.step, Tokens):
                compiled.step.keep(key, value, layer, places)
                compiled.step.attend(query, layer, pages, rows_R, lengths + 1, scale=0.125, window=None)
            else:
                compiled.step.attend(query, key, value, layer, pages, lengths, scale=0.125, window=None)

    theirs, mine = (each / layers for each in compared((of_torch, of_ours), rounds))
    seen = 2 * compiled.dtype.itemsize * rows * (length + 1) * kv_heads * size
    return {**times(theirs, mine), "gb_per_second": round(seen / mine / 1e6, 1)}


def between(compiled: Compiled, rounds: int) -> dict[str, Any]:
    """One of each, in the sizes of SmolLM2-135M and a pack of 2,048 tokens: forward and backward together."""
    ours, kind = compiled.elementwise, compiled.dtype
    tokens, width, inner, words = 2048, 576, 1536, 49152
    x, weight, grad = torch.randn(tokens, width), torch.randn(width), torch.randn(tokens, width).to(kind)
    gate, up, grad_inner = (torch.randn(tokens, inner).to(kind) for _ in range(3))
    q, angles = torch.randn(1, 9, tokens, 64).to(kind), torch.randn(1, 1, tokens, 32).repeat(1, 1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    logits, targets = torch.randn(640, words).to(kind), torch.randint(words, (640,))

    def norm_of_torch() -> Any:
        leaf = x.requires_grad_()
        return torch.autograd.grad(RmsNorm.apply(leaf, weight, 1e-5, kind), leaf, grad)

    def norm_of_ours() -> Any:
        _, inverse = ours.norm(x, weight, 1e-5)
        return ours.norm_backward(grad, x, inverse, weight, learns=False)

    def gate_of_torch() -> Any:
        leaves = [gate.requires_grad_(), up.requires_grad_()]
        return torch.autograd.grad(SwiGlu.apply(*leaves), leaves, grad_inner)

    def gate_of_ours() -> Any:
        ours.gated(gate.detach(), up.detach(), "silu")
        return ours.gated_backward(grad_inner, gate.detach(), up.detach(), "silu")

    def turn_of_torch() -> Any:
        leaf = q.requires_grad_()
        turned = leaf * cos + torch.cat([-leaf[..., 32:], leaf[..., :32]], -1) * sin
        return torch.autograd.grad(turned.to(kind), leaf, q.detach())

    def turn_of_ours() -> Any:
        flat = q.detach()[0].transpose(0, 1)
        ours.rotary(flat, cos[0, 0], sin[0, 0])
        return ours.rotary(flat, cos[0, 0], sin[0, 0], back=True)

    heads = [OutputLayer(torch.nn.Identity()), OutputLayer(torch.nn.Identity(), elementwise=ours)]
    pairs: dict[str, tuple[Call, Call]] = {
        "norm, 2,048 x 576": (norm_of_torch, norm_of_ours),
        "gate, 2,048 x 1,536": (gate_of_torch, gate_of_ours),
        "rotary, 2,048 x 9 x 64": (turn_of_torch, turn_of_ours),
        "softmax of the output layer, 640 x 49,152": softmaxes(heads, logits, targets),
    }
    return {name: times(*compared(pair, rounds)) for name, pair in pairs.items()}


def softmaxes(heads: Sequence[OutputLayer], logits: Tensor, targets: Tensor) -> tuple[Call, Call]:
    from campana.tuning.head import _cross_entropy_  # the step alone, without the products round it

    first, second = (lambda head=head: _cross_entropy_(logits, None, targets, head) for head in heads)
    return first, second


def compared(pair: tuple[Call, Call], rounds: int) -> tuple[float, float]:
    """Medians in milliseconds, the two taking turns."""
    spent: tuple[list[float], list[float]] = ([], [])
    for call in pair:
        call()
    for _ in range(rounds):
        for call, kept in zip(pair, spent, strict=True):
            start = time.perf_counter()
            call()
            kept.append(time.perf_counter() - start)
    first, second = (statistics.median(each) * 1e3 for each in spent)
    return first, second


def times(theirs: float, mine: float) -> dict[str, Any]:
    return {"torch": round(theirs, 2), "compiled": round(mine, 2), "times": round(theirs / mine, 1)}


def error(found: Tensor, wanted: Tensor) -> float:
    return float(f"{float((found.double() - wanted).norm() / wanted.norm()):.2g}")


if __name__ == "__main__":
    main()
