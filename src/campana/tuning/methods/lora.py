"""LoRA: low-rank adapters beside frozen weights (Hu et al. 2021), through PEFT."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from campana.errors import StudyError
from campana.tuning.method import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Lora(Method):
    """Low-rank adapters on chosen linear layers."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1)
    """Rank of the two factors."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale: the update is alpha / rank * B A (alpha / sqrt(rank) with rslora)."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the linear layers that get adapters, or `all-linear` (all but the output layer)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    rslora: bool = False
    """Rank-stabilised scale, alpha / sqrt(rank) (Kalajdzievski 2023)."""
    dora: bool = False
    """Weight-decomposed LoRA (Liu et al. 2024)."""

    def prepare(self, model: PreTrainedModel, seed: int) -> PreTrainedModel:
        """Freeze the model and add adapters in fp32: A Kaiming-uniform from `seed`, B zero. Returns a PEFT model."""
        import torch
        from peft import LoraConfig, get_peft_model

        from campana.models.quiet import quiet

        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType] (PEFT takes any number; its annotation says int)
            target_modules="all-linear" if self.targets == "all-linear" else list(self.targets),
            lora_dropout=self.dropout,
            use_rslora=self.rslora,
            use_dora=self.dora,
        )
        _check_targets(model, self.targets)
        with quiet(), torch.random.fork_rng(devices=[]):  # PEFT draws from the global generator; what it draws is drawn again below
            try:
                adapted: Any = get_peft_model(model, config)
            except ValueError as error:
                raise StudyError(
                    f"PEFT puts no such adapters into {type(model).__name__}: {error}",
                    where="method",
                    hint="name other layers under method.targets, or tune all weights with method: full",
                ) from error
        _refuse_tied(adapted.get_base_model())
        _draw(adapted, seed)
        return adapted

    def export(self, model: PreTrainedModel, out_dir: Path) -> None:
        """PEFT's adapter files. They name no base model: where it lies is not part of the result."""
        adapted: Any = model
        for config in adapted.peft_config.values():
            config.base_model_name_or_path = ""
            if isinstance(config.target_modules, set):  # a set's order is not the same in two processes
                config.target_modules = sorted(config.target_modules)
        adapted.save_pretrained(out_dir, save_embedding_layers=False)  # else a frozen output layer with an adapter is stored as well
        (out_dir / "README.md").unlink(missing_ok=True)


def _check_targets(model: PreTrainedModel, targets: Literal["all-linear"] | tuple[str, ...]) -> None:
    from torch import nn

    if targets == "all-linear":
        return
    names = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)})
    missing = [target for target in targets if target.rsplit(".", 1)[-1] not in names]
    if missing:
        raise StudyError(
            f"the model has no linear layers named {', '.join(missing)}",
            where="method.targets",
            hint=f"its linear layers are: {', '.join(names)}; or write all-linear",
        )


def _refuse_tied(model: Any) -> None:
    """An adapter on one of two tied layers cannot be merged: the merged matrix would change the other layer as well."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    if getattr(model.config.get_text_config(), "tie_word_embeddings", False) and any(isinstance(x, BaseTunerLayer) for x in layers):
        raise StudyError(
            "the output layer and the embedding of this model are one matrix (tied): an adapter on it cannot be merged",
            where="method.targets",
            hint="leave lm_head and embed_tokens out of the targets, or write all-linear",
        )


def _draw(adapted: Any, seed: int) -> None:
    """Initialise every A as `nn.Linear` does, from one explicit generator, in the order of the names."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(adapted.named_parameters()):
        if ".lora_A." not in name or parameter.is_meta:
            continue
        bound = math.sqrt(1.0 / parameter.shape[1])  # kaiming_uniform with a = sqrt(5)
        with torch.no_grad():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
