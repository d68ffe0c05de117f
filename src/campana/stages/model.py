"""`model`: bring a base model in, once, as a transformers folder (safetensors, tokenizer, chat template)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import SerializeAsAny

from campana.core.spec import Context, Meter, StageSpec
from campana.models.source import ModelSource
from campana.parts import part_of
from campana.stages._imports import MODELS


class Model(StageSpec):
    """Fetch a model and store it in one form. Input `files` for a source of this machine."""

    kind: Literal["model"] = "model"
    imports: ClassVar[tuple[str, ...]] = MODELS
    source: Annotated[SerializeAsAny[ModelSource], part_of("source")]
    """Where it comes from."""

    def run(self, context: Context) -> Meter:
        from campana.models.bring import bring_in

        return bring_in(self.source, context.inputs.get("files"), context.out_dir, context.progress, context.cache_dir)

    def outputs_to_check(self) -> Iterable[str]:
        return ("config.json", "tokenizer.json")
