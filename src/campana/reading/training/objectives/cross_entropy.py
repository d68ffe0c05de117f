"""Cross-entropy of the answer's ends, with the null token as the answer where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from campana.reading.training.objective import Objective, Outputs, StepRows, cross_entropy

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class CrossEntropy(Objective):
    """What BERT's authors and run_qa minimise."""

    kind: Literal["cross_entropy"] = "cross_entropy"

    def loss(self, outputs: Outputs, rows: StepRows, extra: Module | None) -> tuple[Tensor, dict[str, float]]:
        """The mean of both ends' cross-entropies."""
        del rows, extra
        loss = cross_entropy(outputs)
        return loss, {"cross_entropy": loss.item()}
