"""A transformers model lent to the packed engine: its own forward, with our attention and with matrix products in the faster order.

It owns the loan: inside `lent(model)` the model answers to `Lent.__call__` and nothing else may use it; afterwards it is as before.

    with lent(model) as forward:
        logits_RV = forward(token_ids, positions, PromptPass(rows), keep=last_places)

Matrix products. In bf16 their weights are packed ahead (`models.prepacked`). In fp32, measured on two Zen 3 cores (MKL;
benchmarks/NOTES.md), for 32 to 256 rows `W @ x.T` takes 0.65 to 0.9 of the time of `x @ W.T`, which is what `nn.Linear` calls. So linear
layers compute the former. The result is left as it comes (features by rows) where a layer widens by more than 2: what follows is
element-wise, and the next product wants that form; else it is laid out by rows. From `LONG` rows on that layout costs a fifth of the
product, and `nn.Linear`'s order none: so prompts are read in it, where it makes the same bits (MKL's does). How a result lies never
depends on the number of rows, for a reduction over it (a norm of each head) could.

Rows are padded to a multiple of `QUANTUM`: below 12 rows MKL takes other kernels, and torch's element-wise and reduction kernels treat
the last elements of an odd size in scalar code whose roundings differ. From there on each row's result is the same to the bit whatever
the number of rows (`invariance` proves it for the model and machine at hand, or has the products done in blocks of fixed size).

Legend: T tokens, R rows kept, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from campana.errors import ModelError
from campana.generation.attention import IMPLEMENTATION, Pass, attend
from campana.generation.paged import Paged, paged_by
from campana.generation.quick import replacements
from campana.models.prepacked import Prepacked, prepacked
from campana.models.products import quick_products
from campana.native.autograd import rotary_of, turning_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from campana.native.compiled import Compiled

QUANTUM = 32
"""Rows of every matrix product are a multiple of this."""

WIDE = 2
"""A linear layer with more than so many outputs an input keeps the result in the order in which the product leaves it."""

LONG = 512
"""Rows from which on a linear layer whose result is laid out by rows computes, in float32, what `nn.Linear` calls."""


class Lent:
    """A model's forward for packed tokens. Made by `lent`."""

    def __init__(self, model: PreTrainedModel, compiled: Compiled | None, paged: Paged | None, weights: Prepacked) -> None:
        self._model = model
        self._weights = weights
        self.compiled = compiled
        """What computes the model's type between the products; None: torch."""
        self.paged = paged
        """What computes attention over pages; None: torch, over a shelf."""
        self._turning = () if compiled is None else turning_files(model, compiled.elementwise)
        self.long_rows: int | None = None
        """None, until it is proved that they make the same bits: products of any number of rows are in one order. Else from so many on in
        the other."""
        self.block_rows: int | None = None
        """None: a matrix product takes all rows at once. Else it is done in blocks of so many."""
        self.num_threads = torch.get_num_threads()
        """Threads of a pass."""

    @property
    def linears(self) -> list[nn.Linear]:
        """The model's linear layers, one of each shape."""
        found = {(m.weight.shape, m.weight.dtype, _bias(m) is None): m for m in self._model.modules() if type(m) is nn.Linear}
        return list(found.values())

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type, which element-wise kernels see too."""
        return self._model.dtype

    @property
    def vocab_size(self) -> int:
        """Entries of the output layer."""
        return self._model.config.get_text_config().vocab_size

    @property
    def widths(self) -> list[int]:
        """Sizes of the rows that element-wise kernels see."""
        config = self._model.config.get_text_config()
        capped = getattr(config, "final_logit_softcapping", None) is not None
        return sorted({m.weight.shape[0] for m in self.linears if capped or m.weight.shape[0] != self.vocab_size})

    @contextmanager
    def threads(self) -> Generator[None]:
        """Within it torch works with `num_threads`."""
        before = torch.get_num_threads()
        if before == self.num_threads:
            yield
            return
        torch.set_num_threads(self.num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def __call__(self, token_ids: Sequence[int], positions: Sequence[int], work: Pass, keep: Sequence[int]) -> Tensor:
        """Logits (at least len(keep), V) at the places `keep`; rows after those are padding."""
        short = -len(token_ids) % QUANTUM
        ids = torch.tensor([[*token_ids, *[0] * short]])
        places = torch.tensor([[*positions, *[0] * short]])
        kept: int | Tensor = 0
        if len(keep) != len(token_ids):
            kept = torch.tensor([*keep, *[keep[-1]] * (-len(keep) % QUANTUM)])
        turned = nullcontext() if self.compiled is None else rotary_of(self._turning, self.compiled.elementwise)
        with torch.no_grad(), self.threads(), turned:
            out = self._model(input_ids=ids, position_ids=places, use_cache=False, logits_to_keep=kept, campana_pass=work)
        logits: Tensor = out.logits[0]
        return logits

    def linear(self, module: nn.Linear, x: Tensor) -> Tensor:
        """`module(x)`, rows first."""
        num_rows = x.numel() // x.shape[-1]
        x_RI = x.reshape(num_rows, x.shape[-1])
        block = self.block_rows
        if block is None or num_rows <= block:
            out_RO = self._product(module, x_RI)
        else:
            out_RO = torch.cat([self._product(module, x_RI[start : start + block]) for start in range(0, num_rows, block)])
        return out_RO.view(*x.shape[:-1], -1)

    def _product(self, module: nn.Linear, x_RI: Tensor) -> Tensor:
        weight, bias = module.weight, _bias(module)
        if weight.dtype != torch.float32:
            return self._weights.product(module, x_RI)
        with quick_products():
            if not is_wide(module) and self.long_rows is not None and len(x_RI) >= self.long_rows:
                return nn.functional.linear(x_RI, weight, bias)
            out_OR = torch.mm(weight, x_RI.t()) if bias is None else torch.addmm(bias[:, None], weight, x_RI.t())
        return out_OR.t() if is_wide(module) else out_OR.t().contiguous()


def is_wide(module: nn.Linear) -> bool:
    """Whether its float32 result is left features by rows."""
    return module.weight.shape[0] > WIDE * module.weight.shape[1]


def _bias(module: nn.Linear) -> Tensor | None:
    """torch types the bias as always there."""
    return module.bias


@contextmanager
def lent(model: PreTrainedModel, by: Compiled | None = None) -> Generator[Lent]:
    """Borrow a model: our attention, our linear layers, one forward. It is given back unchanged. ModelError: its attention is its own.

    `by`: what computes norms, gates, rotary positions and attention of a model of its type; None: torch.
    """
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, attend)
    before: Any = model.config._attn_implementation  # pyright: ignore[reportPrivateUsage]  # transformers has no public getter
    compiled = by if by is not None and by.dtype == model.dtype else None
    if not getattr(model, "_supports_attention_backend", False):
        raise ModelError(
            f"the packed engine cannot exchange the attention of a {type(model).__name__}", hint="generate: {engine: transformers}"
        )
    model.set_attn_implementation(IMPLEMENTATION)
    forwards: list[tuple[nn.Module, Any]] = [] if compiled is None else list(replacements(model, compiled.elementwise))
    with prepacked(model) as weights:
        forward = Lent(model, compiled, None if compiled is None else paged_by(compiled), weights)
        forwards += [(module, functools.partial(forward.linear, module)) for module in model.modules() if type(module) is nn.Linear]
        for module, each in forwards:
            setattr(module, "forward", each)  # noqa: B010  # an attribute of the instance, over the class's method
        try:
            yield forward
        finally:
            for module, _ in forwards:
                del module.forward
            model.set_attn_implementation(before)
