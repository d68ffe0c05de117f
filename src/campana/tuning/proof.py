"""The proof at the start of a run: on real rows, our loss of a pack is the loss that the model's own forward pass gives.

It compares packs, attention within segments, the output layer at supervised positions and every fused operation with
transformers' plain forward of each row alone, logits and all. Whatever an architecture does that we do not know (another logit
scale, a mask of its own, a layer that looks across rows) shows here, before any weight has moved.

    expected = reference(model, rows)            # before the model is changed
    check(network, rows, expected, precision)    # ModelError where they differ
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from campana.errors import ModelError
from campana.tuning.packs import packs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from campana.tuning.forward import Network
    from campana.tuning.packs import Row

NUM_ROWS = 3
MAX_TOKENS = 96
"""Of each row: the proof must cost a moment, not a minute."""
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
"""Relative difference of the mean loss. A wrong mask or scale moves it by far more than rounding does."""


def sample(rows: Any) -> list[Row]:
    """A few rows, cut short after a supervised token; the shortest prefixes that keep one."""
    found: list[Row] = []
    for index in range(min(NUM_ROWS, len(rows))):
        ids, supervised = rows.row(index)
        first = int(supervised[1:].argmax()) + 2
        end = max(first, min(MAX_TOKENS, len(ids)))
        found.append((ids[:end], supervised[:end]))
    return found


def reference(model: PreTrainedModel, rows: Sequence[Row]) -> float:
    """The mean loss of the rows' supervised tokens, each row alone through the model's own forward pass."""
    import numpy as np
    import torch

    total, count = 0.0, 0
    for ids, supervised in rows:
        ids_T = torch.from_numpy(np.asarray(ids, dtype=np.int64)).to(model.device)
        with torch.no_grad():
            logits_TV: torch.Tensor = model(input_ids=ids_T[None], use_cache=False).logits[0].float()
        wanted = torch.from_numpy(np.asarray(supervised[1:], dtype=bool).nonzero()[0]).to(model.device)
        total += torch.nn.functional.cross_entropy(logits_TV[wanted], ids_T[wanted + 1], reduction="sum").item()
        count += wanted.numel()
    return total / count


def check(network: Network, rows: Sequence[Row], expected: float, precision: str) -> None:
    """Raise ModelError where our mean loss differs from `expected`."""
    import torch

    packs = [p.to(network.device) for p in packs_of(rows, sum(len(ids) for ids, _ in rows), alone=not network.whole_packs)]
    with torch.no_grad():
        found = sum(network.loss(pack, 1.0).item() for pack in packs) / sum(p.targets.numel() for p in packs)
    if not abs(found - expected) <= TOLERANCE[precision] * max(1.0, abs(expected)):
        raise ModelError(
            f"the trainer computes a loss of {found:.6f} where {type(network.model).__name__} itself computes {expected:.6f}",
            hint="this architecture does something that the trainer does not know; use another model",
        )
