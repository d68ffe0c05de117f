"""The proof, at the start of every run, that a lent model computes what transformers computes, and each row by itself.

It owns three questions.
- Are matrix products the same to the bit for a row, whatever the number of rows and its place among them? If not (another BLAS), they are
  all made in one order; or in blocks of one fixed size, in which only the place could matter.
- Are element-wise kernels? torch computes what is left of a thread's share after its vectors in scalar code, whose `exp` rounds otherwise,
  and shares of three threads end at odd places. If not, the passes run with two threads, whose shares are whole vectors.
- Do the logits of a prompt and one step agree with the model's own forward, alone and among others, and after a beginning that was read
  before?
Where no way is left the run stops: it never goes on with answers that it cannot repeat.

    expected = plain_logits(model, probe)          # before the loan
    with lent(model) as forward:
        settle(forward, longest_pass=1024, most_rows=128)
        prove(forward, probe, expected)

Legend: V vocabulary, R rows, I features in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from campana.errors import ModelError
from campana.generation.engine import Request
from campana.generation.kv import Row
from campana.generation.lean import LONG, QUANTUM, Lent, is_wide
from campana.generation.passes import open_rows, read_prompts, read_step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SIZES = (32, 64, 96, 128, 160, 352, LONG, 736)
"""Numbers of rows that are tried: each at which MKL was seen to change its blocking, or we the order, and some between."""

_BIG_WEIGHT = 1 << 24
"""Elements of a weight from which on few sizes are tried: the small ones, and the first in the other order where it is ever taken."""

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest difference of a logit from transformers', over the largest logit; rounding of another order of sums stays a tenth of it."""

PROBE_TOKENS = 24
"""Tokens of the first prompt that the proof reads."""


def plain_logits(model: PreTrainedModel, probe: Sequence[int]) -> Tensor:
    """The logits (V) after a prompt as transformers computes them."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([list(probe)]), use_cache=False, logits_to_keep=1).logits
    return logits[0, -1].float()


def settle(forward: Lent, longest_pass: int, most_rows: int) -> None:
    """Choose the fastest way of computing in which rows are independent: all rows of a product at once, many in the order that suits many,
    or in blocks of `QUANTUM`; all threads or two. ModelError: there is none.
    """
    sizes = [size for size in _SIZES if size < longest_pass] + [-(-longest_pass // QUANTUM) * QUANTUM]
    few = [size for size in sizes if size < most_rows + QUANTUM]
    all_threads = forward.num_threads
    for num_threads in dict.fromkeys((all_threads, min(2, all_threads))):
        forward.num_threads = num_threads
        if not elements_are_independent(forward, sizes, few):
            continue
        for long_rows, block_rows in ((LONG, None), (None, None), (None, QUANTUM)):
            forward.long_rows, forward.block_rows = long_rows, block_rows
            if rows_are_independent(forward, sizes):
                return
    raise ModelError(
        "on this machine what is computed for a row depends on its place in the matrix, so an answer would depend on its batch",
        hint="generate: {engine: transformers}",
    )


def elements_are_independent(forward: Lent, sizes: Sequence[int], few: Sequence[int]) -> bool:
    """Whether element-wise kernels give the same bits for a row, in the model's type and in both layouts, whatever the number of rows and
    its place. The width of the vocabulary (a final soft-cap) is tried for `few` numbers of rows.
    """
    generator = torch.Generator().manual_seed(0)
    vocab_size = forward.vocab_size
    for width in forward.widths:
        tried = few if width == vocab_size else sizes
        x_RI = torch.randn(max(tried), width, generator=generator).to(forward.dtype)
        for size, kernel, by_rows in product(tried, (torch.nn.functional.silu, torch.tanh), (True, False)):
            part = x_RI[:size] if by_rows else x_RI[:size].t().contiguous().t()
            with forward.threads():
                expected, moved = kernel(part), kernel(part.roll(7, dims=0) if by_rows else part.t().roll(7, dims=1).t())
                first = kernel(x_RI[:QUANTUM])
            if not torch.equal(moved.roll(-7, dims=0), expected) or not torch.equal(first, expected[:QUANTUM]):
                return False
    return True


def rows_are_independent(forward: Lent, sizes: Sequence[int]) -> bool:
    """Whether every linear layer's rows are the same to the bit for all these numbers of rows, and at another place."""
    generator = torch.Generator().manual_seed(0)
    for module in forward.linears:
        few = (QUANTUM, 2 * QUANTUM) if is_wide(module) else (QUANTUM, 2 * QUANTUM, LONG)
        tried = [size for size in sizes if size in few or module.weight.numel() < _BIG_WEIGHT]
        x_RI = torch.randn(max(tried), module.in_features, generator=generator).to(module.weight.dtype)
        with torch.no_grad(), forward.threads():
            expected = forward.linear(module, x_RI)
            for size in tried:
                moved = x_RI[:size].roll(7, dims=0)
                if not torch.equal(forward.linear(module, moved).roll(-7, dims=0), expected[:size]):
                    return False
    return True


def prove(forward: Lent, probe: Sequence[int], expected_V: Tensor) -> None:
    """A prompt and one step give transformers' logits, and the same bits alone and among others. ModelError where not."""
    alone = _probe_logits(forward, probe, ())
    scale = 1 + float(expected_V.abs().max())
    worst = float((alone.float() - expected_V).abs().max()) / scale
    if not worst <= _TOLERANCE.get(alone.dtype, 0.1):
        raise ModelError(
            f"the packed engine does not compute this model as transformers does: a logit differs by {worst:.2g} of the largest",
            hint="generate: {engine: transformers}",
        )
    others = [tuple(probe[: 1 + number % 2]) for number in range(QUANTUM + 2)]
    among, after = _probe_logits(forward, probe, others), _probe_logits(forward, probe, (), num_shared=(len(probe) - 1) // 2)
    if torch.equal(among, alone) and torch.equal(after, alone):
        return
    if forward.block_rows is None:
        forward.block_rows = QUANTUM
        prove(forward, probe, expected_V)
        return
    raise ModelError("on this machine an answer would depend on its batch", hint="generate: {engine: transformers}")


def _probe_logits(forward: Lent, probe: Sequence[int], others: Sequence[tuple[int, ...]], num_shared: int = 0) -> Tensor:
    """The logits after `probe`, whose last token is read in a step, with other prompts before it, after a shared beginning."""
    prompts = [*others, tuple(probe[:-1])]
    kept = open_rows(forward, probe[:num_shared])
    rows = [Row(Request(str(number), prompt), len(prompt) - kept.num_shared) for number, prompt in enumerate(prompts)]
    for row in rows:
        kept.put(row)
    read_prompts(forward, rows, kept)
    probed = rows[-1]
    for row in rows:
        row.token_ids.append(probe[-1])
    order = kept.rows
    logits = read_step(forward, kept)[order.index(probed)].clone()
    for row in rows:
        kept.take_out(row)  # a row and its bucket know each other: the keys would stay until the next collection of such circles
    return logits
