"""`generate`: let one model answer the items of a suite. Inputs: `model`, `suite`, and `tuned` (a `tune` stage) where there is one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from campana.core.spec import Context, Meter, StageSpec
from campana.generation.engine import Engine, Greedy, Sampling
from campana.parts import EXECUTION, part_of
from campana.stages._imports import TUNING


class Generate(StageSpec):
    """Answer a suite. Writes `answers.jsonl` (campana.answer/1), in the order of the suite."""

    kind: Literal["generate"] = "generate"
    imports: ClassVar[tuple[str, ...]] = TUNING
    engine: Annotated[SerializeAsAny[Engine], part_of("engine")]
    """What generates."""
    suite_format: Literal["campana", "belle"] = "campana"
    """How the suite's rows read."""
    template: str = "model"
    """The chat template; the same as in training."""
    sampling: Sampling = Greedy()
    """Greedy, or sampling with a seed for every item."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Most tokens of an answer; an answer cut there is marked `length`."""
    max_items: int | None = Field(default=None, ge=1)
    """Only so many items of the suite, taken evenly over categories in a hash order; None: all."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the matrix products."""
    journal_every: Annotated[int, EXECUTION] = Field(default=1, ge=1)
    """Answers between two writes of the journal."""

    def run(self, context: Context) -> Meter:
        from campana.generation.answer import answer_suite
        from campana.native.compiled import Compiled

        return answer_suite(
            engine=self.engine,
            model_dir=context.inputs["model"],
            tuned_dir=context.inputs.get("tuned"),
            suite_path=context.inputs["suite"],
            suite_format=self.suite_format,
            template_name=self.template,
            sampling=self.sampling,
            max_new_tokens=self.max_new_tokens,
            max_items=self.max_items,
            precision=self.precision,
            journal_every=self.journal_every,
            out_dir=context.out_dir,
            scratch_dir=context.scratch_dir,
            progress=context.progress,
            compiled=Compiled.find(self.precision, context.cache_dir),
        )

    def outputs_to_check(self) -> Iterable[str]:
        return ("answers.jsonl",)
