"""Full-parameter tuning: every weight learns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from campana.tuning.method import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Full(Method):
    """All parameters are trained."""

    kind: Literal["full"] = "full"

    def prepare(self, model: PreTrainedModel, seed: int) -> PreTrainedModel:  # noqa: ARG002 (nothing is drawn)
        """Every parameter learns, kept in fp32."""
        import torch

        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(True)
        return model

    def export(self, model: PreTrainedModel, out_dir: Path) -> None:
        """A transformers folder: safetensors, config, generation config."""
        model.save_pretrained(out_dir)
