"""Compiled code of ours, for what no library computes at the machine's rate: built from C on the machine that runs it, at first use.

    compiled = Compiled.load(cache_dir)                   # Unavailable, with its reason, where it cannot be had
    out, lse = compiled.attention.forward(q, k, v, bounds, scale=1 / 8, window=None)
    out, inverse = compiled.elementwise.norm(x, weight, eps=1e-5)

For bf16 on CPUs with AVX512-BF16. Whatever is here has a form in torch's own operations as well, which is used everywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from campana.native.attention import Attention
from campana.native.build import Unavailable, load
from campana.native.elementwise import Elementwise

__all__ = ["Attention", "Compiled", "Elementwise", "Unavailable"]


@dataclass(frozen=True)
class Compiled:
    """All of it, from one library."""

    attention: Attention
    elementwise: Elementwise

    @classmethod
    def load(cls, cache_dir: Path) -> Compiled:
        """Compile it (a second or two), or take it from the cache. Raises Unavailable."""
        library = load(cache_dir)
        return cls(Attention(library), Elementwise(library))
