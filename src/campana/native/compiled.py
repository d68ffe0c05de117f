"""All compiled code for numbers of one type: `Compiled.load("fp32", cache_dir)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from campana.models.cache import default_cache_dir
from campana.models.cost import Precision
from campana.native.attention import Attention
from campana.native.build import CODES, Unavailable, load
from campana.native.elementwise import Elementwise
from campana.native.step import Step
from campana.native.tokens import Tokens


@dataclass(frozen=True)
class Compiled:
    """What a loop may use whose matrix products are made in `dtype`; see `campana.native`."""

    dtype: torch.dtype
    attention: Attention
    elementwise: Elementwise
    step: Step | Tokens
    """Attention of single tokens over the keys that are kept of their rows."""

    @classmethod
    def load(cls, precision: Precision, cache_dir: Path) -> Compiled:
        """Compile it (some seconds), or take it from the cache. Raises Unavailable."""
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        library = load(CODES[precision], cache_dir)
        step = Step(library) if precision == "bf16" else Tokens(library)
        return cls(dtype, Attention(library, dtype), Elementwise(library, dtype), step)

    @classmethod
    def find(cls, precision: Precision, cache_dir: Path | None) -> Compiled | None:
        """The same where it can be had, else None. `cache_dir`: None for the cache folder in the person's home."""
        try:
            return cls.load(precision, cache_dir or default_cache_dir())
        except Unavailable:
            return None
