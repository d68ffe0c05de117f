"""The protocol of a tuning method: what of a model learns, and how the result is stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from campana.parts import Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Method(Part):
    """A way to tune. One file in `tuning/methods` each; the loop is the same for all."""

    def prepare(self, model: PreTrainedModel, seed: int) -> PreTrainedModel:
        """Make the model ready to learn: freeze, or add adapters (initialised from `seed`). Returns the model to train."""
        raise NotImplementedError

    def export(self, model: PreTrainedModel, out_dir: Path) -> None:
        """Write what was learnt in an open format (a transformers model, or PEFT's adapter files)."""
        raise NotImplementedError
