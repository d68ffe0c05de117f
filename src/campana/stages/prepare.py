"""`prepare`: read instruction data, drop what cannot be trained on (with the reason), template, tokenise, hold rows out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny

from campana.core.spec import Context, Meter, StageSpec
from campana.data.format import Format
from campana.parts import Part, part_of
from campana.stages._imports import MODELS


class Portion(Part):
    """How much of one data set is used. Subsets are nested: the first rows of one seeded hash order."""

    format: Annotated[SerializeAsAny[Format], part_of("format")]
    """How its rows read."""
    count: int | None = Field(default=None, ge=1)
    """How many rows; None: see `fraction`."""
    fraction: float | None = Field(default=None, gt=0, le=1)
    """Which share of the rows that can be used; None with `count` None: all."""


class Prepare(StageSpec):
    """Instruction data made ready for one tokenizer. Inputs: `model` (its tokenizer) and `data.<name>` for each portion."""

    kind: Literal["prepare"] = "prepare"
    imports: ClassVar[tuple[str, ...]] = MODELS
    portions: Mapping[str, Portion]
    """What is mixed, by the names of the inputs."""
    template: str = "model"
    """`model`: the chat template that the model brings; or a named one of ours."""
    max_length: int = Field(default=1024, ge=8)
    """Most tokens a row; a longer row loses its last turns whole, and is dropped where no answer is left."""
    validation: int = Field(default=64, ge=0)
    """Rows held out of every data set together, from the other end of the hash order: never in any subset's training rows."""
    subset_seed: int = 0
    """Seeds the hash order."""

    def run(self, context: Context) -> Meter:
        from campana.data.prepare import prepare

        return prepare(
            model_dir=context.inputs["model"],
            data_paths=context.many("data"),
            portions=self.portions,
            template_name=self.template,
            max_length=self.max_length,
            num_validation=self.validation,
            subset_seed=self.subset_seed,
            out_dir=context.out_dir,
            progress=context.progress,
        )

    def outputs_to_check(self) -> Iterable[str]:
        return ("train.arrow", "validation.arrow", "data_report.json")
