"""All compiled code, from one library: `Compiled.load(cache_dir)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from campana.models.cache import default_cache_dir
from campana.native.attention import Attention
from campana.native.build import Unavailable, load
from campana.native.elementwise import Elementwise
from campana.native.step import Step


@dataclass(frozen=True)
class Compiled:
    """What a loop may use; see `campana.native`."""

    attention: Attention
    elementwise: Elementwise
    step: Step

    @classmethod
    def load(cls, cache_dir: Path) -> Compiled:
        """Compile it (a second or two), or take it from the cache. Raises Unavailable."""
        library = load(cache_dir)
        return cls(Attention(library), Elementwise(library), Step(library))

    @classmethod
    def find(cls, cache_dir: Path | None) -> Compiled | None:
        """The same where it can be had, else None. `cache_dir`: None for the cache folder in the person's home."""
        try:
            return cls.load(cache_dir or default_cache_dir())
        except Unavailable:
            return None
