"""One gradient for a matrix that is both embedding and output layer.

    made = Made()
    rows_TD = TiedRows.apply(weight_VD, ids_T, padding, made)      # and the output layer sets `made.grad` in its backward pass

By itself autograd makes a second (vocabulary x hidden) matrix for the embedding, zero but for the rows of the pack, and adds the two:
for a vocabulary of 262,144 that is 0.7 GB and three passes over it. Here the rows are added to the output layer's.

Shapes: V vocabulary, D hidden size, T tokens of the pack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(eq=False)
class Made:
    """The output layer's gradient on its way: autograd holds the same tensor until the embedding's part is in."""

    grad: Tensor | None = None

    def take(self) -> Tensor | None:
        """It, once."""
        grad, self.grad = self.grad, None
        return grad


class TiedRows(torch.autograd.Function):
    """Rows of the matrix by token. Its gradient goes into `made`, where there is one; else it is a matrix of its own."""

    @staticmethod
    def forward(ctx: Any, weight_VD: Tensor, ids_T: Tensor, padding: int | None, made: Made) -> Tensor:
        """(T, D). `padding`: a token whose row does not learn from being looked up."""
        ctx.save_for_backward(ids_T)
        ctx.padding, ctx.made, ctx.like = padding, made, weight_VD
        return weight_VD.index_select(0, ids_T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the matrix, or None where it has been added to the output layer's."""
        (ids_T,), (grad_TD,) = ctx.saved_tensors, grads
        if ctx.padding is not None:
            grad_TD = grad_TD.masked_fill((ids_T == ctx.padding)[:, None], 0.0)
        made: Tensor | None = ctx.made.take()
        if made is None:
            return torch.zeros_like(ctx.like).index_add_(0, ids_T, grad_TD.to(ctx.like.dtype)), None, None, None
        made.index_add_(0, ids_T, grad_TD.to(made.dtype))
        return None, None, None, None


def is_tied(model: PreTrainedModel) -> bool:
    """Whether embedding and output layer, and no third module, are one matrix that learns; the embedding must but look up (and scale)."""
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, nn.Embedding) or type(output) is not nn.Linear or embedding.weight is not output.weight:
        return False
    num_holders = sum(any(own is output.weight for own in module.parameters(recurse=False)) for module in model.modules())
    plain = embedding.max_norm is None and not embedding.sparse and not embedding.scale_grad_by_freq
    return plain and num_holders == 2 and output.weight.requires_grad
