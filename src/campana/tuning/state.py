"""The state of a run between two optimiser steps, as tensors and a record, and back: what a checkpoint must hold.

Weights that learn, AdamW's moments, and what was logged. Data order and dropout follow from the seed and the step alone, so
no generator is stored. Frozen weights are not stored: they come from the model.

    tensors = tensors_of(learning, optimizer)
    restore(tensors, learning, optimizer)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.nn import Parameter

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def tensors_of(learning: Mapping[str, Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`weight/<name>` and, after the first step, `step|exp_avg|exp_avg_sq/<name>`."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in learning.items():
        tensors[f"weight/{name}"] = parameter.detach().contiguous()
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{moment}/{name}"] = value.contiguous()
    return tensors


def fits(tensors: Mapping[str, Tensor], learning: Mapping[str, Parameter]) -> bool:
    """Whether the tensors are those of these parameters, name by name and shape by shape."""
    found = {name.split("/", 1)[1]: value.shape for name, value in tensors.items() if name.startswith("weight/")}
    return found == {name: parameter.shape for name, parameter in learning.items()}


def restore(tensors: Mapping[str, Tensor], learning: Mapping[str, Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Put the state back, in place."""
    for name, parameter in learning.items():
        with torch.no_grad():
            parameter.copy_(tensors[f"weight/{name}"])
        found = {moment: tensors[f"{moment}/{name}"] for moment in MOMENTS if f"{moment}/{name}" in tensors}
        if found:
            optimizer.state[parameter] = {
                moment: value.clone() if moment == "step" else torch.empty_like(parameter).copy_(value) for moment, value in found.items()
            }
