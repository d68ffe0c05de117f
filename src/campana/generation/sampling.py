"""Which token comes next: the most likely one, or one drawn with the request's own random numbers.

It owns the draw; engines own the logits. A draw depends on the logits of its own row and on (seed, request id, number of the draw) alone.

    tokens = choose(logits_RV, Sample(seed=0, top_p=0.9), ["q1#0", "q2#0"], [0, 7])

Legend: R rows, V vocabulary, N blocks of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from campana.errors import ModelError
from campana.generation.engine import Greedy, Sample

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1024
"""Vocabulary entries of a block of the two-step argmax, and the first guess at how many tokens hold `top_p`."""


def uniform(seed: int, request_id: str, draw: int) -> float:
    """A number in [0, 1) that depends on these three alone: the first 53 bits of their SHA-256."""
    digest = hashlib.sha256(f"{seed}\n{draw}\n{request_id}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def choose(logits_RV: Tensor, sampling: Greedy | Sample, ids: Sequence[str], draws: Sequence[int]) -> list[int]:
    """The next token of each of the first `len(ids)` rows. ModelError: logits that are not numbers."""
    if isinstance(sampling, Greedy):
        return greedy(logits_RV)[: len(ids)]
    return [
        sample(logits_RV[row], sampling, uniform(sampling.seed, request_id, draw))
        for row, (request_id, draw) in enumerate(zip(ids, draws, strict=True))
    ]


def greedy(logits_RV: Tensor) -> list[int]:
    """The first of the largest logits of each row, as `torch.argmax` has it.

    The largest of blocks is taken first, along whichever axis lies together in memory: torch's reduction to a value uses vectors, its
    argmax does not. 128 rows of 49,152 that lie together: 1.0 ms for 10.8 in bf16, 0.5 for 1.9 in fp32 (benchmarks/NOTES.md, Generation).
    """
    import torch

    num_blocks, num_rows = logits_RV.shape[1] // _BLOCK, logits_RV.shape[0]
    by_column = num_rows > 1 and logits_RV.t().is_contiguous()
    if num_blocks < 2 or not (by_column or logits_RV.is_contiguous()):
        places_R = logits_RV.argmax(dim=-1)
        _require_numbers(logits_RV.gather(1, places_R[:, None]))
        return places_R.tolist()
    blocks_RNB = logits_RV[:, : num_blocks * _BLOCK].unflatten(1, (num_blocks, _BLOCK))
    maxima_RN = blocks_RNB.permute(1, 2, 0).amax(dim=1).t() if by_column else blocks_RNB.amax(dim=2)
    best_R = maxima_RN.argmax(dim=1)
    tops_R = maxima_RN.gather(1, best_R[:, None])[:, 0]
    places_R = blocks_RNB[torch.arange(num_rows), best_R].argmax(dim=-1) + best_R * _BLOCK
    rest_RB = logits_RV[:, num_blocks * _BLOCK :].contiguous()
    if rest_RB.shape[1] > 0:
        rest_R = rest_RB.argmax(dim=-1)
        rest_tops_R = rest_RB.gather(1, rest_R[:, None])[:, 0]
        places_R = torch.where(rest_tops_R > tops_R, rest_R + num_blocks * _BLOCK, places_R)
        tops_R = tops_R + rest_tops_R
    _require_numbers(tops_R)
    return places_R.tolist()


def sample(logits_V: Tensor, sampling: Sample, draw: float) -> int:
    """A token by its probability: temperature, then the `top_k` largest, then the fewest that hold `top_p`; the inverse of their
    cumulative distribution at `draw`, in double precision.

    The order of the filters is transformers'; tokens of equal probability are in the order of their ids.
    """
    import torch

    scaled_V = logits_V.contiguous().double() / sampling.temperature
    _require_numbers(scaled_V.max())
    probabilities_V = torch.softmax(scaled_V, dim=-1)
    if sampling.top_k is None and sampling.top_p >= 1.0:
        return _at(probabilities_V.cumsum(0), draw)
    size = len(probabilities_V)
    if sampling.top_k is not None:
        values, tokens = _largest(probabilities_V, min(sampling.top_k, size))
        values = values / values.sum()
    else:
        values, tokens = _largest(probabilities_V, min(_BLOCK, size))
        if len(values) < size and float(values.sum()) < sampling.top_p:
            values, tokens = _largest(probabilities_V, size)
    cumulative = values.cumsum(0)
    num_kept = int((cumulative - values < sampling.top_p).sum())
    return int(tokens[_at(cumulative[: max(1, num_kept)], draw)])


def _largest(values_V: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest values, falling, and where they are; equal ones by place."""
    floor = values_V.topk(count).values[-1]
    places = (values_V >= floor).nonzero()[:, 0]
    values, order = values_V[places].sort(descending=True, stable=True)
    return values[:count], places[order][:count]


def _at(cumulative: Tensor, draw: float) -> int:
    """The first place whose cumulative weight is above `draw` of the whole."""
    import torch

    place = int(torch.searchsorted(cumulative, draw * float(cumulative[-1]), right=True))
    return min(place, len(cumulative) - 1)


def _require_numbers(values: Tensor) -> None:
    if not bool(values.isfinite().all()):
        raise ModelError(
            "the model's logits are not numbers (NaN or infinite)",
            hint="its weights are damaged or training diverged: look at the training curve, lower the learning rate",
        )
