"""R-Drop (Liang et al. 2021): every question is read twice with other dropout, and both distributions are drawn together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from campana.reading.training.objective import Objective, Outputs, StepRows, cross_entropy

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.nn import Module

    from campana.reading.training.questions import Triple


class RDrop(Objective):
    """Cross-entropy of both views, plus `weight` times their symmetric KL divergence (mean of both directions, mean of both ends)."""

    kind: Literal["rdrop"] = "rdrop"
    weight: float = Field(default=1.0, ge=0)
    """The paper tries 0.1 to 5."""

    def rows(self, windows: Sequence[int], triples: Mapping[int, Triple], random: np.random.Generator) -> StepRows:
        """Every window twice."""
        del triples, random
        count = len(windows)
        return StepRows((*windows, *windows), pairs=tuple((place, count + place) for place in range(count)))

    def loss(self, outputs: Outputs, rows: StepRows, extra: Module | None) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy and divergence of the two views."""
        del extra
        left, right = ([pair[side] for pair in rows.pairs] for side in (0, 1))
        task = cross_entropy(outputs)
        start, end = outputs.start_RL, outputs.end_RL
        apart = (symmetric_kl(start[left], start[right]) + symmetric_kl(end[left], end[right])) / 2
        return task + self.weight * apart, {"cross_entropy": task.item(), "divergence": apart.item()}


def symmetric_kl(one_RL: Tensor, other_RL: Tensor) -> Tensor:
    """(KL(p || q) + KL(q || p)) / 2 in nats, the mean over rows, of two logits."""
    p, q = one_RL.log_softmax(-1), other_RL.log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum(-1).mean() / 2
