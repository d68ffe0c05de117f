"""Causal attention of bf16 numbers on a CPU: matrix products over blocks of queries, each with the keys that its queries see.

    out = forward(q, k, v, scale=1 / 8, window=None)
    grad_q, grad_k, grad_v = backward(grad, q, k, v, scale=1 / 8, window=None)

Up to `LONGEST` tokens quicker than torch's fused kernel, which reaches a quarter of oneDNN's rate at best, and nearer to exact arithmetic
(benchmarks/NOTES.md, Tuning). Scores and softmax are fp32, other products bf16 with sums in fp32. The probabilities are formed again in
the backward pass, so nothing but the inputs need be kept. (Tests run the same code on float64.)

Shapes: B segments, H query heads, K key/value heads, G = H / K, L tokens, D head size; a block has R queries that see C keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from campana.models.onednn import asked_of_onednn

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 768
"""Tokens of a segment. Above, scores leave the caches: alone on the machine no gain, beside other work a loss."""
LONGEST_BLOCK = 128
"""Queries of a block: fewer make thin products, more compute scores that causality throws away, and leave the caches."""


@dataclass(frozen=True)
class Block:
    """Queries `first` to `stop`, which see keys `seen` to `stop`."""

    first: int
    stop: int
    seen: int

    def mask(self, window: int | None, device: torch.device) -> Tensor:
        """(R, 1, M) fp32 to be added to the scores of the last M keys: 0 where a query sees the key, else -inf. All others are seen."""
        start = self.first if window is None else self.seen
        query_R = torch.arange(self.first, self.stop, device=device)
        distance_RM = query_R[:, None] - torch.arange(start, self.stop, device=device)[None, :]
        hidden_RM = distance_RM < 0 if window is None else (distance_RM < 0) | (distance_RM >= window)
        return torch.zeros(hidden_RM.shape, device=device).masked_fill_(hidden_RM, -math.inf).unsqueeze(1)


def forward(q_BHLD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, *, scale: float, window: int | None) -> Tensor:
    """(B, H, L, D) in the type of the inputs. `window`: a query sees that many keys, its own included; None: all before it."""
    segments, kv_heads, length, size = k_BKLD.shape
    out_BLHD = torch.empty(segments, length, q_BHLD.shape[1], size, dtype=q_BHLD.dtype, device=q_BHLD.device)
    out = _grouped(out_BLHD.transpose(1, 2), kv_heads)
    values = v_BKLD.reshape(-1, length, size)
    for block, queries, probabilities in _probabilities(q_BHLD, k_BKLD, scale, window):
        found = torch.bmm(probabilities.to(values.dtype), values[:, block.seen : block.stop])
        out[:, :, block.first : block.stop] = found.view(queries.shape)
    return out_BLHD.transpose(1, 2)


def backward(
    grad_BHLD: Tensor, q_BHLD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, *, scale: float, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, in their shapes and types, from that of `forward`'s result."""
    segments, kv_heads, length, size = k_BKLD.shape
    compute, wide = q_BHLD.dtype, _wide(q_BHLD)
    grads = _grouped(grad_BHLD, kv_heads)
    keys, values = (x.reshape(-1, length, size) for x in (k_BKLD, v_BKLD))
    grad_q_BLHD = torch.empty(segments, length, q_BHLD.shape[1], size, dtype=compute, device=q_BHLD.device)
    grad_q = _grouped(grad_q_BLHD.transpose(1, 2), kv_heads)
    grad_k, grad_v = (torch.zeros(keys.shape, dtype=wide, device=keys.device) for _ in range(2))
    for block, queries, probabilities in _probabilities(q_BHLD, k_BKLD, scale, window):
        rows, seen = slice(block.first, block.stop), slice(block.seen, block.stop)
        grad = grads[:, :, rows].reshape(keys.shape[0], -1, size)
        grad_probabilities = torch.bmm(grad, values[:, seen].transpose(1, 2)).to(wide)
        grad_scores = torch.ops.aten._softmax_backward_data(grad_probabilities, probabilities, -1, wide).to(compute)
        grad_v[:, seen] += torch.bmm(probabilities.to(compute).transpose(1, 2), grad)
        grad_k[:, seen] += torch.bmm(grad_scores.transpose(1, 2), queries.reshape(keys.shape[0], -1, size)).mul_(scale)
        grad_q[:, :, rows] = torch.bmm(grad_scores, keys[:, seen]).mul_(scale).view(queries.shape)
    shape = k_BKLD.shape
    return grad_q_BLHD.transpose(1, 2), grad_k.to(compute).view(shape), grad_v.to(compute).view(shape)


def _probabilities(q_BHLD: Tensor, k_BKLD: Tensor, scale: float, window: int | None) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """For each block its queries (B, K, R, G, D) and the probabilities of the keys that it sees, (B * K, R * G, C) fp32."""
    _, kv_heads, length, size = k_BKLD.shape
    q_BKLGD = _grouped(q_BHLD, kv_heads)
    keys = k_BKLD.reshape(-1, length, size).to(_wide(k_BKLD))
    triangle: Tensor | None = None
    for block in _blocks(length, window):
        queries = q_BKLGD[:, :, block.first : block.stop]
        rows, group = queries.shape[2:4]
        with asked_of_onednn():  # queries and keys are bf16 numbers: exact in whatever oneDNN multiplies
            flat = queries.reshape(-1, rows * group, size).to(keys.dtype)
            scores = torch.bmm(flat, keys[:, block.seen : block.stop].transpose(1, 2)).mul_(scale)
        if window is not None or triangle is None:
            triangle = block.mask(window, scores.device)
        mask = triangle[:rows, :, :rows] if window is None else triangle
        scores.view(-1, rows, group, block.stop - block.seen)[..., -mask.shape[-1] :].add_(mask)
        yield block, queries, torch.softmax(scores, dim=-1)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _blocks(length: int, window: int | None) -> Iterator[Block]:
    count = -(-length // LONGEST_BLOCK)
    rows = -(-length // count)
    for first in range(0, length, rows):
        yield Block(first, min(first + rows, length), 0 if window is None else max(0, first - window + 1))


def _grouped(x_BHLD: Tensor, kv_heads: int) -> Tensor:
    """(B, H, L, D) -> (B, K, L, G, D), a view."""
    return x_BHLD.unflatten(1, (kv_heads, -1)).transpose(2, 3)
