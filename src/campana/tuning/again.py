"""What the backward pass makes again in place of keeping it: a norm's result from its input, a gate's product from its factors.

    out_TD = makes_again(norm(x_TD), lambda: norm(x_TD))      # x_TD is kept in any case, for the norm's own gradient
    ctx.again = promised(out_TD)                              # a matrix that reads it: made again for all that do, once
    ...
    out_TD = ctx.again.get()

The same operation on the same numbers: the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class Again:
    """A tensor to be made again. It is held from the first to the last `get` of those that it was promised to, and then no more.

    After the last one nothing is left of it, nor of what it would be made from: a second backward pass over one graph cannot be had, as
    without `retain_graph`. (torch drops the saved tensors of a graph that has been gone through, but not what a context refers to.)
    """

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make: Callable[[], Tensor] | None = make
        self._promises = 0
        self._made: Tensor | None = None

    def promise(self) -> None:
        """Somebody will `get` it once."""
        self._promises += 1

    def get(self) -> Tensor:
        """The tensor. RuntimeError: all who were promised it have had it."""
        if self._make is None:
            raise RuntimeError("this graph has been gone through backward before, and what it would be made from is gone")
        made = self._make() if self._made is None else self._made
        self._promises -= 1
        self._made, self._make = (made, self._make) if self._promises else (None, None)
        return made


def makes_again(made: Any, make: Callable[[], Tensor]) -> Any:
    """`made`, marked so that who would keep it for a backward pass can have it made again. `make` must hold no graph."""
    if torch.is_grad_enabled():
        made.again = Again(make)
    return made


def promised(x: Tensor) -> Again | None:
    """How this very tensor is made again; None where it must be kept."""
    again: Again | None = getattr(x, "again", None)
    if again is not None:
        again.promise()
    return again
