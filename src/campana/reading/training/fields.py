"""How a reader is trained, as study files and stages both say it: one list of fields, their defaults and what they mean."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from campana.parts import EXECUTION, part_of
from campana.reading.training.data import MadeAs
from campana.reading.training.objective import Objective
from campana.tuning.options import AdamW, Schedule


class TrainingFields(BaseModel):
    """What the recipe of a study and the stage that it becomes have in common."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    objective: Annotated[SerializeAsAny[Objective], part_of("objective")] = Field(default="cross_entropy", validate_default=True)
    """What is minimised: `cross_entropy`, `rdrop`, or `{kind: spancl, weight: 0.5, temperature: 0.1}`."""
    made_as: MadeAs = "both"
    """How made counterparts are used: contrasted with their question, trained on as plain questions, or both."""
    steps: int = Field(ge=1)
    """Optimiser steps; where there is a first phase, those of the second."""
    plain_steps: int = Field(default=0, ge=0)
    """How many of them minimise cross-entropy alone, before the objective begins: abstention first, then contrast."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Tokens of the questions that a step draws, passages included; what an objective reads beside them is not counted."""
    schedule: Schedule = Schedule()
    """How the learning rate goes, in each phase."""
    optimizer: AdamW = AdamW()
    """The optimiser."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this global norm."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of hidden states."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder. Weights, optimiser state, head and loss are fp32 in both."""
    max_length: int = Field(default=384, ge=16)
    """Tokens of a window: question, passage and special tokens."""
    overlap: int = Field(default=128, ge=0)
    """Passage tokens that two neighbouring windows share."""
    max_answer_tokens: int = Field(default=30, ge=1)
    """The longest answer."""
    num_evaluations: int = Field(default=2, ge=1)
    """How often a phase measures the held-out loss, evenly spaced, the end included."""
    checkpoint_seconds: Annotated[float, EXECUTION] = Field(default=120.0, ge=0)
    """Seconds between checkpoints, 0: after every step; a kill loses at most this much work."""

    @model_validator(mode="after")
    def _plain_steps_are_steps(self) -> Self:
        if self.plain_steps > self.steps:
            raise ValueError(f"plain_steps ({self.plain_steps}) are a part of the steps ({self.steps}): give at most as many")
        return self
