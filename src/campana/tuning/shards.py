"""Tensors as files that any number of ranks can read: torch.distributed.checkpoint, stored as safetensors and without a pickle.

    path = write(folder, tensors, index)     # rank `index`'s part of them, in a file of its own
    read(folder, tensors)                    # in place; each rank what it holds

torch plans who writes and reads what. Its own safetensors writer makes a copy of everything in memory first; the one here writes
from where the tensors are. Both are called by all ranks together, and raise OSError on every rank where one of them fails.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from torch import Tensor
    from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
    from torch.futures import Future

PLACES = "DCP_SHARDING_INFO"
"""The header's field in which torch's reader looks for where each part lies in its tensor: {name: {"saved_offsets": [...]}}."""


class _Writer(HuggingFaceStorageWriter):
    """Writes this rank's part of all tensors as one file, from where they are."""

    def __init__(self, folder: Path, index: int) -> None:
        super().__init__(str(folder), save_distributed=True)
        self.file = folder / f"rank-{index}.safetensors"
        self.is_written = False

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Called by torch with what falls to this rank."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        parts: dict[str, Tensor] = {}
        places: dict[str, Any] = {}
        for item in plan.items:
            part: Any = planner.resolve_data(item)
            parts[item.index.fqn] = part.detach().contiguous()
            places[item.index.fqn] = {"saved_offsets": list(item.tensor_data.chunk.offsets) if item.tensor_data else []}
        if parts:
            try:
                save_file(parts, self.file, metadata={PLACES: json.dumps(places), "format": "pt"})
            except SafetensorError as error:  # how the library tells a full disk
                raise OSError(str(error)) from error
            self.is_written = True
        done: Future[list[WriteResult]] = torch.futures.Future()
        done.set_result([WriteResult(item.index, parts[item.index.fqn].nbytes, None) for item in plan.items])
        return done


@contextlib.contextmanager
def _alone_or_together() -> Generator[bool]:
    """Whether this process is alone, of which torch would warn; failures of any rank become an OSError."""
    alone = not torch.distributed.is_initialized()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*single process.*")
            yield alone
    except CheckpointException as error:  # no subclass of Exception
        rank, (cause, _) = next(iter(error.failures.items()))
        raise OSError(str(cause) if alone else f"rank {rank}: {cause}") from error


def write(folder: Path, tensors: Mapping[str, Tensor], index: int) -> Path | None:
    """Write this rank's part. Returns its file, or None where nothing falls to this rank."""
    writer = _Writer(folder, index)
    with _alone_or_together() as alone:
        save(dict(tensors), storage_writer=writer, no_dist=alone)
    return writer.file if writer.is_written else None


def read(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill the tensors from the files of a folder."""
    with _alone_or_together() as alone:
        load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)
