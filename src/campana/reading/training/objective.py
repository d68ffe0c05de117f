"""The protocol of a training objective: which rows a step reads, and what it minimises on them.

R: rows of a step; L: longest row; D: a span vector (hidden states of its first and last token).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from campana.parts import Part

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.nn import Module

    from campana.reading.training.questions import Triple


@dataclass(frozen=True, eq=False)
class StepRows:
    """The rows of one step, by their windows. A window that stands twice is read twice, with other dropout."""

    windows: tuple[int, ...]
    """R windows. Every objective's first rows are the step's own questions."""
    pairs: tuple[tuple[int, int], ...] = ()
    """Places of two views of one question (R-Drop)."""
    triples: tuple[tuple[int, int, int], ...] = ()
    """Places of a question, its answerable and its unanswerable counterpart."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the model said of a step's rows. Positions that cannot be an answer have the logit `NEVER`."""

    start_RL: Tensor
    end_RL: Tensor
    target_R2: Tensor
    """First and last token of the target; the null token where there is no answer."""
    span_RD: Tensor | None
    """Span vectors; only where the objective reads them, and zeros where a row has no span."""


NEVER = -1e9
"""Finite, so that a KL divergence between two such positions is 0 and not NaN."""


class Objective(Part):
    """What training minimises. One file in `reading/training/objectives` each."""

    @property
    def reads_vectors(self) -> bool:
        """Whether `Outputs.span_RD` is needed."""
        return False

    def rows(self, windows: Sequence[int], triples: Mapping[int, Triple], random: np.random.Generator) -> StepRows:
        """The rows of a step that draws these windows. All choices come from `random`."""
        del triples, random
        return StepRows(tuple(windows))

    def modules(self, width: int, seed: int) -> Module | None:
        """Weights that only training has, for span vectors of `width` numbers; None where there are none."""
        del width, seed
        return None

    def loss(self, outputs: Outputs, rows: StepRows, extra: Module | None) -> tuple[Tensor, dict[str, float]]:
        """(what is minimised, figures for the log). `extra` is what `modules` gave."""
        raise NotImplementedError


def cross_entropy(outputs: Outputs) -> Tensor:
    """Mean over rows of the mean of both ends' cross-entropies: no answer is the null token (Devlin et al. 2019)."""
    from torch.nn import functional

    start = functional.cross_entropy(outputs.start_RL, outputs.target_R2[:, 0])
    return (start + functional.cross_entropy(outputs.end_RL, outputs.target_R2[:, 1])) / 2
