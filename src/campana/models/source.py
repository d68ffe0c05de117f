"""The protocol of a model source: a pinned place that yields a transformers folder."""

from __future__ import annotations

from pathlib import Path

from campana.parts import Part


class ModelSource(Part):
    """Where a model comes from. Its identity fields pin the content; nothing here names a path of this machine."""

    def fetch(self, cache_dir: Path, local_path: Path | None) -> Path:
        """The path of a `.gguf` file or a transformers folder, downloaded if need be (cached in `cache_dir`, checked by hash).

        `local_path` is where the content lies for a source of this machine, else None. Raises ModelError with what to type next.
        """
        raise NotImplementedError
