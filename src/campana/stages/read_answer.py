"""`read_answer`: let a reader answer the questions of a suite. Inputs: `reader` (a `read_train` stage) and `suite` (questions)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from campana.core.spec import Context, Meter, StageSpec
from campana.stages._imports import MODELS


class ReadAnswer(StageSpec):
    """Answer a suite at the fitted threshold. Writes `answers.jsonl` (campana.answer/1), `readings.jsonl` (campana.reading/1, with the
    best spans) and `reading.json` (scores at every threshold, with intervals).
    """

    kind: Literal["read_answer"] = "read_answer"
    imports: ClassVar[tuple[str, ...]] = MODELS
    max_items: int | None = Field(default=None, ge=1)
    """Only so many questions, taken evenly over answerable and unanswerable ones in a hash order; None: all."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder."""

    def run(self, context: Context) -> Meter:
        from campana.reading.suite import answer_questions

        return answer_questions(
            reader_dir=context.inputs["reader"] / "model",
            suite_path=context.inputs["suite"],
            max_items=self.max_items,
            precision=self.precision,
            out_dir=context.out_dir,
            cache_dir=context.cache_dir,
            progress=context.progress,
        )

    def outputs_to_check(self) -> Iterable[str]:
        return ("answers.jsonl", "readings.jsonl", "reading.json")
