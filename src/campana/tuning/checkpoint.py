"""Checkpoints: whole or absent, newest good one wins. safetensors and JSON, nothing else.

    checkpoints = Checkpoints(scratch_dir / "checkpoints")
    checkpoints.save(12, tensors, {"rows": [...]})
    saved = checkpoints.newest()          # None where there is none that is whole

A checkpoint is written beside the others, flushed to disk, and renamed into place; the one before it goes only then, so a
full disk or a kill at any byte loses nothing. What does not match its own hash is passed over: an older one is used.
Refuses nothing: a write that fails raises `StoreError` and leaves the folder as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campana.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

SCHEMA = "campana.checkpoint/1"
TENSORS = "state.safetensors"
RECORD = "state.json"
KEPT = 2
"""Checkpoints that stay: the newest, and one to fall back on."""


@dataclass(frozen=True, eq=False)
class Saved:
    """A checkpoint that was read whole."""

    step: int
    """Optimiser steps done."""
    tensors: dict[str, Tensor]
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder, and removes what a killed save has left."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("writing-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Store the state after `step` steps. StoreError where it cannot be written; then the older ones are still there."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        writing = self.folder / f"writing-{os.getpid()}"
        try:
            writing.mkdir()
            save_file(dict(tensors), writing / TENSORS)
            body = {"schema": SCHEMA, "step": step, "tensors_sha256": _sha256(writing / TENSORS), "record": dict(record)}
            text = json.dumps(body, ensure_ascii=False)
            (writing / RECORD).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", encoding="utf-8")
            for path in (writing / TENSORS, writing / RECORD, writing):
                _flush(path)
            target = self.folder / f"step-{step:09d}"
            if target.exists():  # one that was found damaged, or is the same
                shutil.rmtree(target)
            writing.rename(target)
            _flush(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(writing, ignore_errors=True)
            raise StoreError(f"the checkpoint of step {step} could not be written: {error}", where=str(self.folder)) from error
        for old in list(self._newest_first())[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> Saved | None:
        """The newest checkpoint that is whole, or None."""
        return next((saved for path in self._newest_first() if (saved := _read(path)) is not None), None)

    def _newest_first(self) -> Iterator[Path]:
        return iter(sorted(self.folder.glob("step-*"), reverse=True))


def _read(path: Path) -> Saved | None:
    """The checkpoint in a folder; None where it is damaged in any way."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        digest, text = (path / RECORD).read_text(encoding="utf-8").split("\n", 1)
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            return None
        body = json.loads(text)
        if body["schema"] != SCHEMA or _sha256(path / TENSORS) != body["tensors_sha256"]:
            return None
        return Saved(body["step"], load_file(path / TENSORS), body["record"])
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
