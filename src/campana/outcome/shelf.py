"""The store as the report reads it: files of built stages, what stages measured, and attempts that came to nothing.

shelf = Shelf(store)
shelf.json(stage, "tune.json")     # None where the stage is not built
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from campana.core.verify import sound_path
from campana.errors import StoreError
from campana.records import Row, read_jsonl

if TYPE_CHECKING:
    from pathlib import Path

    from campana.core.attempts import Attempt
    from campana.core.manifest import Manifest
    from campana.core.spec import Stage
    from campana.core.store import Store

R = TypeVar("R", bound=Row)


class Shelf:
    """Reads each manifest once; a stage that is not built reads as None or as nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._manifests: dict[str, Manifest | None] = {}

    def built(self, stage: Stage) -> bool:
        """Whether the stage's object exists."""
        return self.manifest(stage) is not None

    def manifest(self, stage: Stage) -> Manifest | None:
        """The manifest of a built stage."""
        if stage.key not in self._manifests:
            self._manifests[stage.key] = self._store.manifest(stage.key) if self._store.has(stage.key) else None
        return self._manifests[stage.key]

    def meter(self, stage: Stage) -> Mapping[str, Any]:
        """What the stage measured of itself; empty where it is not built."""
        manifest = self.manifest(stage)
        return {} if manifest is None else manifest.meter

    def wasted(self, stage: Stage) -> list[Attempt]:
        """The tries of the stage that failed or were killed, oldest first."""
        return [attempt for attempt in self._store.attempts(stage.key) if attempt.outcome != "built"]

    def json(self, stage: Stage, name: str) -> Any | None:
        """A JSON file of a built stage. A file that is gone or damaged is a StoreError."""
        if not self.built(stage):
            return None
        try:
            return json.loads(self._file(stage, name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(stage, name, error) from error

    def lines(self, stage: Stage, name: str) -> Iterator[Any]:
        """The rows of a JSONL file of a built stage."""
        if not self.built(stage):
            return
        try:
            with self._file(stage, name).open(encoding="utf-8") as file:
                for line in file:
                    yield json.loads(line)
        except (OSError, ValueError) as error:
            raise self._damaged(stage, name, error) from error

    def rows(self, stage: Stage, name: str, row_type: type[R]) -> list[R]:
        """The records of a JSONL file of a built stage."""
        if not self.built(stage):
            return []
        try:
            return list(read_jsonl(self._file(stage, name), row_type))
        except OSError as error:
            raise self._damaged(stage, name, error) from error

    def _file(self, stage: Stage, name: str) -> Path:
        return sound_path(self._store, stage.key, [name]) / name

    def _damaged(self, stage: Stage, name: str, error: Exception) -> StoreError:
        return StoreError(
            f"{name} of a built stage cannot be read: {error}", where=stage.label or stage.key[:12], hint="campana verify --repair"
        )
