"""`read_check`: score a reader's answers against the accepted ones. Inputs: `answers` (a `read_answer` stage) and `suite`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from campana.core.spec import Context, Meter, StageSpec


class ReadCheck(StageSpec):
    """Score every answer 0..1; answerable and unanswerable questions are two categories. Writes `scores.jsonl` (campana.score/1)."""

    kind: Literal["read_check"] = "read_check"
    score: Literal["f1", "exact"] = "f1"
    """F1 of the words (of Chinese, of the longest common run), or exact match. The other one is in the score's parts."""

    def run(self, context: Context) -> Meter:
        from campana.reading.suite import score_questions

        return score_questions(context.inputs["suite"], context.inputs["answers"] / "answers.jsonl", self.score, context.out_dir)

    def outputs_to_check(self) -> Iterable[str]:
        return ("scores.jsonl",)
