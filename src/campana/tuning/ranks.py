"""Ranks: the processes that tune one model together, started by torchrun, and the few things that they say to each other.

    with joined(job.ranks) as ranks:            # one process: a group of one, which says nothing to anybody
        (total,) = ranks.sum(loss)

It owns the process group. What is said here are numbers and small objects, through gloo; weights and gradients go through FSDP2
(`sharding`), with NCCL where there is CUDA. Refuses a process that torchrun did not start.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from campana.errors import StageFailed

if TYPE_CHECKING:
    from collections.abc import Generator

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """All processes of a run, seen from one of them."""

    index: int = 0
    """This one."""
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes results and talks to the person."""
        return self.index == 0

    def sum(self, *values: float) -> list[float]:
        """Of each value, the sum over all ranks, in float64; the same bits on every rank."""
        if self.count == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        sums_N = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums_N)
        return sums_N.tolist()

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in their order, on every rank."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        found: list[T] = [value] * self.count
        dist.all_gather_object(found, value)
        return found

    def first(self, value: T) -> T:
        """What rank 0 says; the others give what they have and get that. Nobody goes on before rank 0 is here."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]


@contextlib.contextmanager
def joined(count: int) -> Generator[Ranks]:
    """This process's place among `count` ranks. With one it is alone, and nothing is set up."""
    if count == 1:
        yield Ranks()
        return
    import torch
    import torch.distributed as dist

    if not dist.is_torchelastic_launched():
        raise StageFailed(
            f"{count} ranks are asked for, but this process is not one of them",
            hint=f"start it by torchrun --nproc-per-node={count}; campana run does so itself",
        )
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    if dist.get_world_size() != count:
        raise StageFailed(f"{count} ranks are asked for, but torchrun started {dist.get_world_size()}", hint="give both the same number")
    if torch.cuda.is_available():
        torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())
    yield Ranks(dist.get_rank(), count)
    dist.destroy_process_group()  # not after an error: the others would hear of a lost connection before its reason is told
