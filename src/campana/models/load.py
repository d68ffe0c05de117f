"""Load what a `model` stage stored and a `tune` stage learnt: the model, its tokenizer, its configuration.

    model = load_model(model_dir)                          # the base, float32
    model = load_model(model_dir, tuned_dir)               # what was tuned: a whole model, or the base with its adapter merged
    tokenizer = load_tokenizer(model_dir)

safetensors only: no pickle, no code that comes with a model, no network.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from campana.errors import ModelError
from campana.models.folder import read_json, refuse_unsafe, weight_files

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["fp32", "bf16"]


def read_config(model_dir: Path) -> dict[str, Any]:
    """The model's config.json, as plain values. Loads no library."""
    return read_json(model_dir / "config.json")


def load_tokenizer(model_dir: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a stored model."""
    from transformers import AutoTokenizer

    from campana.models.quiet import quiet

    if not (model_dir / "tokenizer.json").is_file():
        raise ModelError("the model folder has no tokenizer.json", where=str(model_dir), hint="build the model stage again")
    with quiet():
        return AutoTokenizer.from_pretrained(str(model_dir), local_files_only=True)


@overload
def load_model(
    model_dir: Path,
    tuned_dir: Path | None = None,
    *,
    merge: Literal[True] = True,
    precision: Precision = "fp32",
    attention: str | None = None,
) -> PreTrainedModel: ...
@overload
def load_model(
    model_dir: Path,
    tuned_dir: Path | None = None,
    *,
    merge: bool,
    precision: Precision = "fp32",
    attention: str | None = None,
) -> PreTrainedModel | PeftModel: ...
def load_model(
    model_dir: Path,
    tuned_dir: Path | None = None,
    *,
    merge: bool = True,
    precision: Precision = "fp32",
    attention: str | None = None,
) -> PreTrainedModel | PeftModel:
    """A causal language model in evaluation mode, on the CPU.

    `tuned_dir` is a `tune` stage's folder: its `model/` holds a whole model, which is loaded instead of the base, or PEFT's adapter,
    which is merged into the base in float32 (`merge=False`: kept beside it, frozen). `precision` is the weights' type; `attention` is
    transformers' name of an attention implementation. ModelError: missing or foreign weights, an adapter that fits another model.
    """
    import torch

    from campana.models.adapter import add_adapter, is_adapter

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if tuned_dir is None:
        return _load_whole(model_dir, dtype, attention)
    learnt = tuned_dir / "model"
    if not learnt.is_dir():
        raise ModelError(
            "the tune stage kept no weights",
            where=str(tuned_dir),
            hint="it was a trial: tune with export on, or use another stage's folder",
        )
    if not is_adapter(learnt):
        return _load_whole(learnt, dtype, attention)
    adapted = add_adapter(_load_whole(model_dir, torch.float32, attention), learnt)
    if not merge:
        return adapted.to(dtype)
    merged: PreTrainedModel = adapted.merge_and_unload()  # pyright: ignore[reportCallIssue, reportAssignmentType]  # PEFT types it as a Tensor or Module
    return merged.to(dtype)  # pyright: ignore[reportArgumentType]  # transformers decorates `to`, which hides its overloads


def _load_whole(model_dir: Path, dtype: Any, attention: str | None) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    from campana.models.prove import refuse_missing
    from campana.models.quiet import quiet

    refuse_unsafe(model_dir)
    weight_files(model_dir)
    with quiet():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(model_dir),
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                use_safetensors=True,
                local_files_only=True,
            )
        except ValueError as error:
            kind = read_config(model_dir).get("model_type")
            raise ModelError(
                f"a {kind!r} model cannot be loaded as a causal language model: {str(error).splitlines()[0]}", where=str(model_dir)
            ) from error
    model, report = loaded
    refuse_missing(model_dir, report, model)
    return model.eval()
