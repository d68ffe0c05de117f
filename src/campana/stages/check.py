"""`check`: score answers by rules. Inputs: `answers` (a `generate` stage) and `suite`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny

from campana.checks._protocol import Check
from campana.core.spec import Context, Meter, StageSpec
from campana.parts import ADDED, part_of


class CheckStage(StageSpec):
    """Score every answer 0..1, or say why it is unscored. Writes `scores.jsonl` (campana.score/1)."""

    kind: Literal["check"] = "check"
    suite_format: Literal["campana", "belle"] = "campana"
    """How the suite's rows read."""
    default: Annotated[SerializeAsAny[Check] | None, part_of("check")] = None
    """For items that name no check of their own, such as chrF against the reference; None: those are unscored."""
    versions: Annotated[Mapping[str, int], ADDED] = Field(default_factory=dict)
    """Of the kinds of check that the suite's items name: the versions that are not 1. The key holds the items' checks as text alone."""

    def run(self, context: Context) -> Meter:
        from campana.checks._score import score_answers

        return score_answers(
            suite_path=context.inputs["suite"],
            suite_format=self.suite_format,
            answers_dir=context.inputs["answers"],
            default=self.default,
            out_dir=context.out_dir,
        )

    def outputs_to_check(self) -> Iterable[str]:
        return ("scores.jsonl",)
