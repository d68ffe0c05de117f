"""`measure`: from scores to estimates with intervals, paired differences and verdicts. Inputs: `scores.<arm>/<seed>`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from campana.core.spec import Context, Meter, StageSpec
from campana.parts import Part


class ArmScores(Part):
    """Which inputs hold an arm's scores."""

    levels: Mapping[str, str]
    """Factor -> level; empty for a baseline."""
    inputs: tuple[str, ...]
    """Names of the inputs, one a seed, in the order of the study's seeds (the same name twice where the seed moves nothing)."""


class Contrast(Part):
    """A comparison of two sides, each a set of arms (their mean is compared, pair by pair of the other factors)."""

    name: str
    """`method: lora - full`."""
    left: tuple[str, ...]
    right: tuple[str, ...]
    """Arms of the same length as `left`, matched one to one: same levels of all other factors."""
    primary: bool = False
    """Said before the run; tested at the full level. All others share the multiplicity control."""


class Measure(StageSpec):
    """Estimates per arm and category, and contrasts between arms. Writes `measure.json`."""

    kind: Literal["measure"] = "measure"
    version: ClassVar[int] = 3
    arms: Mapping[str, ArmScores]
    contrasts: tuple[Contrast, ...]
    average: Literal["macro", "micro"] = "macro"
    """The headline: mean over categories of their means (as the papers do), or mean over items."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Of every interval."""
    margin: float = Field(default=0.02, ge=0)
    """Differences within it are of no practical worth: an interval inside it is `equivalent`."""
    seed: int = 0
    """Of the resampling."""

    def run(self, context: Context) -> Meter:
        from campana.stats.measure import measure

        return measure(
            scores=context.many("scores"),
            arms={name: (dict(arm.levels), arm.inputs) for name, arm in self.arms.items()},
            contrasts=[(c.name, c.left, c.right, c.primary) for c in self.contrasts],
            average=self.average,
            confidence=self.confidence,
            margin=self.margin,
            seed=self.seed,
            out_dir=context.out_dir,
        )

    def outputs_to_check(self) -> Iterable[str]:
        return ("measure.json",)
