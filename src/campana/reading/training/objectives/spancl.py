"""spanCL: a question is drawn towards an answerable counterpart and away from an unanswerable one, at the answer's span.

A re-implementation from the abstract of the paper (2022): temperature, weight, projection and the source of the positives are not
published, so they are options here.

The question, an answerable and an unanswerable counterpart are read with the same passage. Of each, the vector of the same span of
passage tokens is taken (the unanswerable one's is its plausible answer): the hidden states of its first and last token, which the head
reads. The contrast is InfoNCE (van den Oord et al. 2018) over cosine similarities.
"""

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


class SpanCL(Objective):
    """Cross-entropy of all three views, plus `weight` times the contrast of their span vectors."""

    kind: Literal["spancl"] = "spancl"
    weight: float = Field(default=0.5, ge=0)
    """Of the contrast."""
    temperature: float = Field(default=0.1, gt=0)
    """Of the similarities."""
    projection: int = Field(default=0, ge=0)
    """Width of a projection (one layer, tanh) that only training has; 0: the vectors themselves."""
    in_batch: bool = True
    """Whether the counterparts of the step's other questions are negatives too."""
    positive: Literal["dropout", "counterpart"] = "counterpart"
    """`counterpart`: an answerable counterpart (paraphrase or rule edit) where the question has one, else as `dropout`: the question
    again with other dropout (as SimCSE, Gao et al. 2021)."""

    @property
    def reads_vectors(self) -> bool:
        """The contrast is between span vectors."""
        return True

    def rows(self, windows: Sequence[int], triples: Mapping[int, Triple], random: np.random.Generator) -> StepRows:
        """The windows, then a positive and a negative of each that has counterparts, drawn anew at each step."""
        rows, places = list(windows), list[tuple[int, int, int]]()
        for place, window in enumerate(windows):
            triple = triples.get(window)
            if triple is None:
                continue
            negative = triple.negatives[int(random.integers(len(triple.negatives)))]
            choice = int(random.integers(max(len(triple.positives), 1)))
            positive = triple.positives[choice] if triple.positives and self.positive == "counterpart" else window
            places.append((place, len(rows), len(rows) + 1))
            rows += [positive, negative]
        return StepRows(tuple(rows), triples=tuple(places))

    def modules(self, width: int, seed: int) -> Module | None:
        """The projection, where there is one."""
        import torch

        if not self.projection:
            return None
        linear = torch.nn.Linear(width, self.projection)
        torch.nn.init.xavier_uniform_(linear.weight, generator=torch.Generator().manual_seed(seed))
        torch.nn.init.zeros_(linear.bias)
        return torch.nn.Sequential(linear, torch.nn.Tanh())

    def loss(self, outputs: Outputs, rows: StepRows, extra: Module | None) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of all rows and the weighted contrast of the step's triples."""
        task = cross_entropy(outputs)
        if not rows.triples:
            return task, {"cross_entropy": task.item(), "triples": 0}
        assert outputs.span_RD is not None
        vectors = outputs.span_RD if extra is None else extra(outputs.span_RD)
        anchor, positive, negative = (vectors[[triple[side] for triple in rows.triples]] for side in range(3))
        contrast, near, far = info_nce(anchor, positive, negative, self.temperature, in_batch=self.in_batch)
        return task + self.weight * contrast, {
            "cross_entropy": task.item(),
            "contrast": contrast.item(),
            "similarity_positive": near.mean().item(),
            "similarity_negative": far.mean().item(),
            "triples": len(rows.triples),
        }


def info_nce(
    anchor_TD: Tensor, positive_TD: Tensor, negative_TD: Tensor, temperature: float, *, in_batch: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean loss, (T,) cosine to the own positive, (T,) cosine to the own negative) of T triples.

    The loss is `-log softmax` of the own positive among: itself, the own negative and, with `in_batch`, all others' positives and
    negatives.
    """
    import torch
    from torch.nn import functional

    anchor, positive, negative = (functional.normalize(each.float(), dim=-1) for each in (anchor_TD, positive_TD, negative_TD))
    near, far = (anchor * positive).sum(-1), (anchor * negative).sum(-1)
    if in_batch:
        scores = torch.cat([anchor @ positive.T, anchor @ negative.T], dim=1) / temperature
        target = torch.arange(len(anchor), device=scores.device)
    else:
        scores = torch.stack([near, far], dim=1) / temperature
        target = torch.zeros(len(anchor), dtype=torch.long, device=scores.device)
    return functional.cross_entropy(scores, target), near.detach(), far.detach()
