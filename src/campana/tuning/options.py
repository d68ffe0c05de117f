"""The choices of a tuning run, as parts: learning rate, schedule, optimiser. Values only; the loop reads them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

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

    @model_validator(mode="after")
    def _refuse_idle(self) -> Self:
        """A field that moves nothing would look like a difference between arms."""
        if self.kind != "wsd" and self.decay != type(self).model_fields["decay"].default:
            raise ValueError(f"`decay` is of kind wsd, and this schedule is {self.kind}: leave it out")
        if self.kind == "constant" and self.floor != type(self).model_fields["floor"].default:
            raise ValueError("`floor` is where a decay ends, and a constant schedule has none: leave it out")
        if self.kind == "wsd" and self.warmup + self.decay > 1:
            raise ValueError(f"warm-up ({self.warmup:g}) and decay ({self.decay:g}) are more than the whole run")
        return self


class AdamW(Part):
    """AdamW with decoupled weight decay (Loshchilov & Hutter 2019): two fp32 numbers of state a parameter."""

    shards: ClassVar[bool] = True
    """Whether it can run with weights that are cut over several ranks."""
    kind: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    """Applied to matrices only: not to norms, biases or embeddings of one dimension."""


class Adafactor(Part):
    """Adafactor (Shazeer & Stern 2018) without momentum: of a matrix, one fp32 number of state a row and one a column.

    The memory-lean choice: next to no state. The learning rate is relative to the size of each weight matrix, so it is another
    number than AdamW's: search around 1e-3 to 1e-2. On one rank only.
    """

    shards: ClassVar[bool] = False
    """torch's sums over the rows of a cut matrix in place, which a DTensor refuses."""
    kind: Literal["adafactor"] = "adafactor"
    beta2_decay: float = Field(default=-0.8, le=0)
    """The second moment's decay at step t is 1 - t ** beta2_decay."""
    clip: float = Field(default=1.0, gt=0)
    """Updates are clipped to this root mean square."""
    smallest: float = Field(default=1e-3, gt=0)
    """Weights that are smaller, by root mean square, move as if they were of this size."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Applied to matrices only."""


def _named(value: Any) -> Any:
    """A bare kind, or fields without one, which are AdamW's."""
    if isinstance(value, str):
        return {"kind": value}
    return {"kind": "adamw", **value} if isinstance(value, dict) else value


Optimizer = Annotated[AdamW | Adafactor, Field(discriminator="kind"), BeforeValidator(_named)]
