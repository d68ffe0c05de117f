"""`read_train`: train a reader. Inputs: `start` (an encoder's `model` stage, or another `read_train`), `train` (questions), `held_out`
(questions of other documents), and `made` (made counterparts) where there are some.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from campana.core.spec import Context, Meter, StageSpec
from campana.reading.settings import Settings
from campana.reading.training.fields import TrainingFields
from campana.stages._imports import TUNING
from campana.tuning.options import FixedRate


class ReadTrain(TrainingFields, StageSpec):
    """Train an encoder to answer from passages, or to abstain. Writes `model/` (a reader), `metrics.jsonl`, `tune.json`."""

    kind: Literal["read_train"] = "read_train"
    version: ClassVar[int] = 2
    imports: ClassVar[tuple[str, ...]] = TUNING
    questions: Literal["answerable", "balanced", "all"] = "all"
    """What is learnt from: only questions with an answer, to learn spans first; as many with as without one; or all."""
    learning_rate: FixedRate
    """Peak learning rate."""
    seed: int = 0
    """New head, data order, counterparts and dropout."""
    fit: Literal["temperature", "isotonic", "none"] = "temperature"
    """What threshold and P(no answer) are fitted by, on the held-out questions; `none` for a reader that is trained on."""

    @property
    def settings(self) -> Settings:
        """How the reader reads."""
        return Settings(max_length=self.max_length, overlap=self.overlap, max_answer_tokens=self.max_answer_tokens)

    def run(self, context: Context) -> Meter:
        from campana.reading.files import load_examples
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
            settings=self.settings,
            fit=None if self.fit == "none" else self.fit,
            num_evaluations=self.num_evaluations,
            checkpoint_seconds=self.checkpoint_seconds,
            cache_dir=context.cache_dir,
            problems=data.problems,
        )
        return train_reader(job, context.progress)

    def outputs_to_check(self) -> Iterable[str]:
        return ("metrics.jsonl", "tune.json", "model")
