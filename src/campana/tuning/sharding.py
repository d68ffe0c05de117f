"""FSDP2: every rank keeps a part of each weight, its gradient and its optimiser state; a layer is whole only while it computes.

    network = shard(network, ranks)                      # in place: the model's parameters are DTensors from here on
    norm = clip_(learning.values(), max_norm=1.0, ranks)
    gather_(model, ranks)                                # whole again, on rank 0 alone, to be stored

Each decoder layer is a group of its own. Embedding, last norm and output layer are the root's group, and the root is not the
model but `PackLoss`, from a pack to its loss: so the output layer's matrix, which `head` reads without calling its layer, is whole
when it is read, and a tied matrix is one parameter of one group. Gradients are summed, not averaged: each rank's loss is already
divided by the supervised tokens of the whole step.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from campana.tuning.forward import Network

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch.distributed.tensor import DTensor
    from torch.nn import Parameter

    from campana.tuning.packs import Pack
    from campana.tuning.ranks import Ranks


class PackLoss(nn.Module):
    """`Network` as a module, so that what is gathered for the root stays gathered over decoder and output layer alike."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model = network.model
        self._network = network

    def part(self) -> None:
        """From here on each row is run by itself."""
        self._network = self._network.apart()

    def forward(self, pack: Pack, weight: float | None) -> Tensor:
        """0-d: `weight` times the summed cross-entropy of the pack's supervised tokens; None: their hidden states, (N, D)."""
        return self._network.hidden(pack) if weight is None else self._network.loss(pack, weight)


@dataclass(frozen=True, eq=False)
class ShardedNetwork(Network):
    """A network whose weights lie in parts on all ranks: they run as many passes, each on its own packs."""

    whole: PackLoss

    def apart(self) -> Network:
        """As `Network.apart`, in place too: all ranks run the same module."""
        self.whole.part()
        return replace(self, whole_packs=False)

    def hidden(self, pack: Pack) -> Tensor:
        """As `Network.hidden`, of this rank's pack."""
        return self._passed(pack, None)

    def loss(self, pack: Pack, weight: float) -> Tensor:
        """As `Network.loss`, of this rank's pack."""
        return self._passed(pack, weight)

    def _passed(self, pack: Pack, weight: float | None) -> Tensor:
        found = self.whole(pack, weight)
        if not torch.is_grad_enabled():  # after a pass with gradients the backward pass does it
            cast("Any", self.whole).reshard()
        return found


def shard(network: Network, ranks: Ranks) -> Network:
    """Cut the model over the ranks, in place. With one rank: the network as it is."""
    if ranks.count == 1:
        return network
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (ranks.count,))
    whole = PackLoss(network)
    for layer in _layers(network.decoder, network.model):
        fully_shard(layer, mesh=mesh)
    fully_shard(whole, mesh=mesh)
    for module in whole.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(enable=True)
    return ShardedNetwork(**{field.name: getattr(network, field.name) for field in fields(network)}, whole=whole)


def _layers(decoder: nn.Module, model: nn.Module) -> Sequence[nn.Module]:
    """The decoder's layers; none where they share a weight with each other or with the rest, which one group must then hold."""
    layers = [layer for child in decoder.children() if isinstance(child, nn.ModuleList) for layer in child]
    held = [id(p) for layer in layers for p in layer.parameters()]
    inside = {id(module) for layer in layers for module in layer.modules()}
    outside = {id(p) for m in model.modules() if id(m) not in inside for p in m.parameters(recurse=False)}
    return layers if len(held) == len(set(held)) and outside.isdisjoint(held) else ()


def is_cut(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether the tensor lies in parts on the ranks."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that is cut over the ranks; another tensor as it is. Shares memory."""
    return tensor.to_local() if is_cut(tensor) else tensor


@torch.no_grad()
def clip_(parameters: Iterable[Parameter], max_norm: float, ranks: Ranks) -> float:
    """Scale the gradients, in place, to a norm of at most `max_norm` over all parameters and ranks. Returns the norm that they had.

    With one rank: `torch.nn.utils.clip_grad_norm_`, bit for bit.
    """
    grads = [local(p.grad) for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if ranks.count > 1:
        norm = torch.tensor(ranks.sum(norm.item() ** 2)[0] ** 0.5, dtype=norm.dtype, device=norm.device)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(scale)
    return norm.item()


def gather_(model: nn.Module, ranks: Ranks) -> None:
    """Make what learns whole again on rank 0, in place, so that it can be stored as any other model. The other ranks drop each part."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if not is_cut(parameter) or not parameter.requires_grad:
                continue
            if id(parameter) not in made:
                whole = parameter.full_tensor().detach().cpu()
                made[id(parameter)] = nn.Parameter(whole if ranks.is_first else whole.new_empty(0))
            setattr(module, name, made[id(parameter)])
