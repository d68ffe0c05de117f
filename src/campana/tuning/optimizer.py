"""The optimiser over the parameters that learn, with weight decay on matrices only: torch's fused AdamW, or torch's Adafactor.

optimizer = build(model, AdamW(weight_decay=0.1), rate=1e-5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from campana.tuning.options import Adafactor
from campana.tuning.sharding import is_cut

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from campana.tuning.options import Optimizer

LINE = 16
"""Numbers in a line of the cache, in fp32: each moment starts at one."""


def learning_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn by name, each once (tied weights have one), in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def build(model: torch.nn.Module, options: Optimizer, rate: float) -> torch.optim.Optimizer:
    """The optimiser of all that learns. Vectors (norms, biases, DoRA's magnitudes) do not decay."""
    learning = learning_parameters(model).values()
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if isinstance(options, Adafactor):
        eps = (None, options.smallest)
        return torch.optim.Adafactor(groups, lr=rate, beta2_decay=options.beta2_decay, eps=eps, d=options.clip, foreach=False)
    # fused: 3 times as fast as foreach on CPU, and no temporaries (benchmarks/NOTES.md, Tuning)
    adamw = torch.optim.AdamW(groups, lr=rate, betas=(options.beta1, options.beta2), eps=options.epsilon, fused=True)
    _make_moments(adamw)
    return adamw


def _make_moments(adamw: torch.optim.Optimizer) -> None:
    """Now, and not in the first step: there they would take the memory that activations have just left, and the second would touch more."""
    parameters = [p for group in adamw.param_groups for p in group["params"]]
    for parameter, (mean, square) in zip(parameters, _zeros(parameters), strict=True):
        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        adamw.state[parameter] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}


def _zeros(parameters: Sequence[torch.nn.Parameter]) -> Iterator[tuple[Tensor, Tensor]]:
    """Two tensors of zeros of each parameter's form, all in one block: an allocator rounds hundreds up, and leaves holes between."""
    if len({(p.dtype, p.device) for p in parameters}) > 1 or any(map(is_cut, parameters)):
        yield from ((torch.zeros_like(p), torch.zeros_like(p)) for p in parameters)
        return
    sizes = [-(-p.numel() // LINE) * LINE for p in parameters for _ in range(2)]
    parts = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device).split(sizes)
    for p, mean, square in zip(parameters, parts[::2], parts[1::2], strict=True):
        yield mean[: p.numel()].view_as(p), square[: p.numel()].view_as(p)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
