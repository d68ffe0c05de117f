"""The state of a run between two optimiser steps, as tensors, and back: what a checkpoint must hold.

Weights that learn, the optimiser's own tensors, and what was logged. Data order and dropout follow from the seed and the step
alone, so no generator is stored. Frozen weights are not stored: they come from the model. With several ranks each tensor is a
DTensor, of which a rank holds its part.

    checkpoints.save(12, tensors_of(learning, optimizer), record)
    restore(saved, learning, optimizer)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from campana.tuning.optimizer import set_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.nn import Parameter

    from campana.tuning.checkpoint import Saved


def tensors_of(learning: Mapping[str, Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`weight/<name>` and what the optimiser keeps by now (AdamW: `step|exp_avg|exp_avg_sq/<name>`). Shares memory."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in learning.items():
        tensors[f"weight/{name}"] = parameter.detach()
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}/{name}"] = value
    return tensors


def restore(saved: Saved, learning: Mapping[str, Parameter], optimizer: torch.optim.Optimizer) -> bool:
    """Put the state back, in place. False, and nothing changed, where the checkpoint is of other parameters or another optimiser."""
    if {name: list(p.shape) for name, p in learning.items()} != _shapes_of_weights(saved):
        return False
    _make_room(saved, learning, optimizer)
    tensors = tensors_of(learning, optimizer)
    if {name: list(value.shape) for name, value in tensors.items()} != saved.shapes:
        optimizer.state.clear()
        return False
    saved.read_into(tensors)
    return True


def _shapes_of_weights(saved: Saved) -> dict[str, list[int]]:
    return {name.removeprefix("weight/"): shape for name, shape in saved.shapes.items() if name.startswith("weight/")}


def _make_room(saved: Saved, learning: Mapping[str, Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Let the optimiser make its tensors where the checkpoint has some: by a step of rate 0 on gradients of 0, which moves nothing."""
    kept = {name.split("/", 1)[1] for name in saved.shapes if not name.startswith("weight/")}
    rates = [group["lr"] for group in optimizer.param_groups]
    for name, parameter in learning.items():
        parameter.grad = torch.zeros_like(parameter) if name in kept else None
    set_rate(optimizer, 0.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
