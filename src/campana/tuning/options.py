"""The choices of a tuning run, as parts: learning rate, schedule, optimiser. Values only; the loop reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from campana.parts import Part


class FixedRate(Part):
    """A learning rate that is known."""

    kind: Literal["fixed"] = "fixed"
    value: float = Field(gt=0)
    """Peak learning rate."""


class SelectedRate(Part):
    """The learning rate that a `select` stage finds; it comes in as the input `select`."""

    kind: Literal["selected"] = "selected"


LearningRate = Annotated[FixedRate | SelectedRate, Field(discriminator="kind")]


class Schedule(Part):
    """How the learning rate goes over the run, as a share of its peak."""

    kind: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """After warm-up: half a cosine or a line to `floor`, constant, or stable and then a linear decay (WSD)."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which the rate rises linearly from 0 to its peak."""
    decay: float = Field(default=0.2, gt=0, le=1)
    """WSD only: share of the steps of the final linear decay."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """Where the decay ends, as a share of the peak."""


class AdamW(Part):
    """AdamW with decoupled weight decay (Loshchilov & Hutter 2019), fp32 state."""

    kind: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    """Applied to matrices only: not to norms, biases or embeddings of one dimension."""
