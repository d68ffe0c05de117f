"""Checkpoints: whole or absent, newest good one wins. Each rank writes its part; any number of ranks reads them.

    checkpoints = Checkpoints(scratch_dir / "checkpoints", ranks)
    checkpoints.save(12, tensors, {"rows": [...]})
    saved = checkpoints.newest()          # None where there is none that is whole
    saved.read_into(tensors)              # in place, whatever part of them this rank holds

Made by torch.distributed.checkpoint, stored as safetensors (`shards`) and one JSON record with the hash of every file. A
checkpoint is written beside the others, flushed to disk, and renamed into place by rank 0 once every rank has said that its part
is there; the one before it goes only then, so a full disk or a kill at any byte loses nothing. What does not match its own hash is
passed over, and named in `damaged` and in the log: an older one is used. Every method is called by all ranks together.
Refuses nothing: a write that fails on any rank raises `StoreError` on all, and leaves the folder as it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campana.errors import StoreError
from campana.tuning.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

SCHEMA = "campana.checkpoint/2"
RECORD = "state.json"
KEPT = 2
"""Checkpoints that stay: the newest, and one to fall back on."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Saved:
    """A checkpoint that was found whole."""

    step: int
    """Optimiser steps done."""
    shapes: dict[str, list[int]]
    """Of the whole tensors, by name."""
    record: dict[str, Any]
    path: Path

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill the tensors, in place, with what was saved; a DTensor with this rank's part of it."""
        from campana.tuning.shards import read

        read(self.path, tensors)


class Checkpoints:
    """The checkpoints of one run, in a folder of their own."""

    def __init__(self, folder: Path, ranks: Ranks = Ranks()) -> None:  # noqa: B008 (frozen)
        """Makes the folder, and removes what a killed save has left."""
        self.folder = folder
        self.damaged: list[str] = []
        """Names of those that `newest` had to pass over."""
        self._ranks = ranks
        if ranks.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob("writing-*"):
                shutil.rmtree(leftover, ignore_errors=True)
        ranks.first(None)

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Store the state after `step` steps. StoreError where it cannot be written; then the older ones are still there."""
        writing = self.folder / f"writing-{step:09d}"
        parts = self._ranks.gather(self._write_part(writing, tensors) if self._opened(writing) else ("", "", "its folder cannot be made"))
        trouble = next((trouble for _, _, trouble in parts if trouble), "")
        if not trouble:
            shapes = {name: list(value.shape) for name, value in tensors.items()}
            files = {name: digest for name, digest, _ in parts if name}
            trouble = self._ranks.first(self._finish(writing, step, shapes, files, record) if self._ranks.is_first else "")
        if trouble:
            if self._ranks.is_first:
                shutil.rmtree(writing, ignore_errors=True)
            raise StoreError(f"the checkpoint of step {step} could not be written: {trouble}", where=str(self.folder))

    def newest(self) -> Saved | None:
        """The newest checkpoint that is whole, or None."""
        names = self._ranks.first(sorted((path.name for path in self.folder.glob("step-*")), reverse=True))
        for name in names:
            body = self._ranks.first(_read_record(self.folder / name))
            if body is not None and all(self._ranks.gather(self._is_whole(self.folder / name, body["files"]))):
                return Saved(body["step"], body["shapes"], body["record"], self.folder / name)
            self.damaged.append(name)
            log.warning("checkpoint %s is damaged: an older one is used where there is one", self.folder / name)
        return None

    def _opened(self, writing: Path) -> bool:
        """Make the folder to write into, on rank 0; what all ranks go by is whether that worked."""
        made = True
        if self._ranks.is_first:
            try:
                shutil.rmtree(writing, ignore_errors=True)
                writing.mkdir()
            except OSError:
                made = False
        return self._ranks.first(made)

    def _write_part(self, writing: Path, tensors: Mapping[str, Tensor]) -> tuple[str, str, str]:
        """(File, its SHA-256, what went wrong) of this rank's part."""
        from campana.tuning.shards import write

        try:
            path = write(writing, tensors, self._ranks.index)
            if path is None:
                return "", "", ""
            _flush(path)
            return path.name, _sha256(path), ""
        except OSError as error:
            return "", "", str(error)

    def _finish(self, writing: Path, step: int, shapes: Mapping[str, Any], files: Mapping[str, str], record: Mapping[str, Any]) -> str:
        """Write the record and bring the folder to its name. Returns what went wrong."""
        try:
            body = {"schema": SCHEMA, "step": step, "shapes": dict(shapes), "files": dict(files), "record": dict(record)}
            text = json.dumps(body, ensure_ascii=False)
            (writing / RECORD).write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", encoding="utf-8")
            _flush(writing / RECORD)
            _flush(writing)
            target = self.folder / f"step-{step:09d}"
            if target.exists():  # one that was found damaged, or is the same
                shutil.rmtree(target)
            writing.rename(target)
            _flush(self.folder)
        except OSError as error:
            return str(error)
        for old in sorted(self.folder.glob("step-*"), reverse=True)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return ""

    def _is_whole(self, path: Path, files: Mapping[str, str]) -> bool:
        """Whether this rank's share of the files are what was written."""
        try:
            mine = [name for index, name in enumerate(sorted(files)) if index % self._ranks.count == self._ranks.index]
            return all(_sha256(path / name) == files[name] for name in mine)
        except OSError:
            return False


def _read_record(path: Path) -> dict[str, Any] | None:
    """What the record says; None where it is damaged or of another schema."""
    try:
        digest, text = (path / RECORD).read_text(encoding="utf-8").split("\n", 1)
        body = json.loads(text)
    except (OSError, ValueError):
        return None
    return body if hashlib.sha256(text.encode()).hexdigest() == digest and body.get("schema") == SCHEMA else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
