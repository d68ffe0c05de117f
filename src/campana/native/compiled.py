"""All compiled code, from one library: `Compiled.load(cache_dir)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from campana.native.attention import Attention
from campana.native.build import load
from campana.native.elementwise import Elementwise


@dataclass(frozen=True)
class Compiled:
    """What a loop may use; see `campana.native`."""

    attention: Attention
    elementwise: Elementwise

    @classmethod
    def load(cls, cache_dir: Path) -> Compiled:
        """Compile it (a second or two), or take it from the cache. Raises Unavailable."""
        library = load(cache_dir)
        return cls(Attention(library), Elementwise(library))
