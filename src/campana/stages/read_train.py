"""`read_train`: train a reader. Inputs: `start` (an encoder's `model` stage, or another `read_train`), `train` (questions), `held_out`
(questions of other documents), and `made` (made counterparts) where there are some.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from campana.core.spec import Context, Meter, StageSpec
from campana.parts import EXECUTION, part_of
from campana.reading.training.objective import Objective
from campana.stages._imports import TUNING
from campana.tuning.options import AdamW, FixedRate, Schedule


class ReadTrain(StageSpec):
    """Train an encoder to answer from passages, or to abstain. Writes `model/` (a reader), `metrics.jsonl`, `tune.json`."""

    kind: Literal["read_train"] = "read_train"
    imports: ClassVar[tuple[str, ...]] = TUNING
    objective: Annotated[SerializeAsAny[Objective], part_of("objective")]
    """What is minimised: `cross_entropy`, `rdrop` or `spancl`."""
    questions: Literal["answerable", "balanced", "all"] = "all"
    """What is learnt from: only questions with an answer, to learn spans first; as many with as without one; or all."""
    made_as: Literal["contrast", "questions", "both"] = "both"
    """How made counterparts are used: contrasted, as plain questions, or both."""
    steps: int = Field(ge=1)
    """Optimiser steps."""
    plain_steps: int = Field(default=0, ge=0)
    """How many of them minimise cross-entropy alone, before the objective begins."""
    batch_tokens: int = Field(default=4096, ge=16)
    """Tokens of the questions that a step draws, passages included; what an objective reads beside them is not counted."""
    learning_rate: FixedRate
    """Peak learning rate."""
    schedule: Schedule = Schedule()
    """How the learning rate goes."""
    optimizer: AdamW = AdamW()
    """The optimiser."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this global norm."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of hidden states."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder in training. Weights, optimiser state, head and loss are fp32 in both."""
    max_length: int = Field(default=384, ge=16)
    """Tokens of a window: question, passage and special tokens."""
    overlap: int = Field(default=128, ge=0)
    """Passage tokens that two neighbouring windows share."""
    max_answer_tokens: int = Field(default=30, ge=1)
    """The longest answer."""
    seed: int = 0
    """New head, data order, counterparts and dropout."""
    fit: Literal["temperature", "isotonic", "none"] = "temperature"
    """What threshold and P(no answer) are fitted by, on the held-out questions; `none` for a reader that is trained on."""
    num_evaluations: int = Field(default=2, ge=1)
    """How often the held-out loss is measured, evenly spaced, the end included."""
    checkpoint_seconds: Annotated[float, EXECUTION] = Field(default=120.0, ge=0)
    """Seconds between checkpoints, 0: after every step; a kill loses at most this much work."""

    def run(self, context: Context) -> Meter:
        from campana.reading.files import load_examples
        from campana.reading.settings import Settings
        from campana.reading.training.data import training_data
        from campana.reading.training.job import ReadTrainJob, train_reader

        data = training_data(context.inputs["train"], context.inputs.get("made"), self.made_as)
        start = context.inputs["start"]
        job = ReadTrainJob(
            start_dir=start / "model" if (start / "model").is_dir() else start,
            examples=data.examples,
            families=data.families,
            held_out=load_examples(context.inputs["held_out"]),
            out_dir=context.out_dir,
            scratch_dir=context.scratch_dir,
            objective=self.objective,
            steps=self.steps,
            plain_steps=self.plain_steps,
            questions=self.questions,
            batch_tokens=self.batch_tokens,
            learning_rate=self.learning_rate.value,
            schedule=self.schedule,
            optimizer=self.optimizer,
            max_grad_norm=self.max_grad_norm,
            dropout=self.dropout,
            precision=self.precision,
            seed=self.seed,
            settings=Settings(max_length=self.max_length, overlap=self.overlap, max_answer_tokens=self.max_answer_tokens),
            fit=None if self.fit == "none" else self.fit,
            num_evaluations=self.num_evaluations,
            checkpoint_seconds=self.checkpoint_seconds,
        )
        return train_reader(job, context.progress)

    def outputs_to_check(self) -> Iterable[str]:
        return ("metrics.jsonl", "tune.json", "model")
