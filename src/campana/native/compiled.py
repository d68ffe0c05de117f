"""All compiled code: `Compiled.load(cache_dir)` for bf16, `Tokens` for answers in fp32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from campana.models.cache import default_cache_dir
from campana.native.attention import Attention
from campana.native.build import BF16, FP32, Unavailable, load
from campana.native.elementwise import Elementwise
from campana.native.step import Step
from campana.native.tokens import Tokens


@dataclass(frozen=True)
class Compiled:
    """What a loop may use in bf16; see `campana.native`."""

    attention: Attention
    elementwise: Elementwise
    step: Step

    @classmethod
    def load(cls, cache_dir: Path) -> Compiled:
        """Compile it (a second or two), or take it from the cache. Raises Unavailable."""
        library = load(BF16, cache_dir)
        return cls(Attention(library), Elementwise(library), Step(library))

    @classmethod
    def find(cls, cache_dir: Path | None) -> Compiled | None:
        """The same where it can be had, else None. `cache_dir`: None for the cache folder in the person's home."""
        try:
            return cls.load(cache_dir or default_cache_dir())
        except Unavailable:
            return None


ForAnswers = Compiled | Tokens
"""What answers are made with: a bf16 model's, an fp32 model's."""


def find_for_answers(precision: str, cache_dir: Path | None) -> ForAnswers | None:
    """What a model in this precision can be answered with, compiled or taken from the cache; None where it cannot be had."""
    if precision == "bf16":
        return Compiled.find(cache_dir)
    try:
        return Tokens(load(FP32, cache_dir or default_cache_dir()))
    except Unavailable:
        return None
