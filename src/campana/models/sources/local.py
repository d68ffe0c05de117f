"""`local`: a transformers folder or a `.gguf` file of this machine. It has no fields: the content's digest is the stage's input `files`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from campana.errors import ModelError
from campana.models.source import ModelSource


class Local(ModelSource):
    """Files that are already here."""

    kind: Literal["local"] = "local"

    def fetch(self, cache_dir: Path, local_path: Path | None) -> Path:
        """`local_path` itself. A path that is gone is an error."""
        del cache_dir
        if local_path is None:
            raise ModelError("a model of this machine needs its path", hint="give the folder or the .gguf file as the input `files`")
        if not local_path.exists():
            raise ModelError(
                "the model is no longer there", where=str(local_path), hint="put it back, or give its new path in the study file"
            )
        return local_path
