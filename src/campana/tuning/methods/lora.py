"""LoRA: low-rank adapters beside frozen weights (Hu et al. 2021), through PEFT."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from campana.tuning.method import Method


class Lora(Method):
    """Low-rank adapters on chosen linear layers."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    """Rank of the two factors."""
    alpha: float = Field(32.0, gt=0)
    """Scale: the update is alpha / rank * B A (alpha / sqrt(rank) with rslora)."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the linear layers that get adapters, or `all-linear` (all but the output layer)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    rslora: bool = False
    """Rank-stabilised scale, alpha / sqrt(rank) (Kalajdzievski 2023)."""
    dora: bool = False
    """Weight-decomposed LoRA (Liu et al. 2024)."""
