"""PEFT's adapters: load one onto its base, and refuse one that is empty, incomplete or made for another model.

An adapter that was saved empty, or whose names do not match, loads without an error in PEFT and answers exactly as the base does.
Here both are errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from campana.errors import ModelError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

_WEIGHTS = "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds PEFT's adapter rather than a whole model."""
    return (folder / "adapter_config.json").is_file()


def add_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """The base with the adapter beside its weights, frozen. The base object itself is changed."""
    from peft import PeftModel

    from campana.models.quiet import quiet

    tensors = _read_tensors(folder)
    _refuse_empty(tensors, folder)
    with quiet():
        try:
            model = PeftModel.from_pretrained(base, str(folder), local_files_only=True)
        except (ValueError, RuntimeError) as error:
            raise _other_model(folder, str(error).strip().splitlines()[-1].strip()) from error
        placed = _names_in(model, tensors)
    if missing := sorted(placed - set(tensors)):
        raise _other_model(folder, f"it has nothing for {missing[0]} (and {len(missing) - 1} more)")
    if foreign := sorted(set(tensors) - placed):
        raise _other_model(folder, f"{foreign[0]} (and {len(foreign) - 1} more) has no place")
    return model.eval()


def _names_in(model: PeftModel, tensors: dict[str, torch.Tensor]) -> set[str]:
    """What the model would save as its adapter, by the names of the file."""
    from peft import get_peft_model_state_dict

    # Said outright: on `auto` PEFT asks the hub for the base's vocabulary size.
    embeddings = any(name.endswith(("embed_tokens.weight", "lm_head.weight")) and "lora" not in name for name in tensors)
    return set(get_peft_model_state_dict(model, save_embedding_layers=embeddings))


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / _WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        reason = "its weights are pickled, and reading a pickle can run code" if pickled else f"it has no {_WEIGHTS}"
        raise ModelError(f"the adapter cannot be used: {reason}", where=str(folder), hint="save it again with PEFT's save_pretrained")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"the adapter is damaged: {error}", where=str(path), hint="tune again") from error


def _refuse_empty(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Nothing saved, or factors that multiply to zero with nothing else beside them."""
    hint = "it was saved before training, saved from the wrong object, or trained with a learning rate of 0: tune again"
    if not tensors:
        raise ModelError("the adapter is empty: it holds no tensors", where=str(folder), hint=hint)
    factors = {name: tensor for name, tensor in tensors.items() if "lora_B" in name or "lora_embedding_B" in name}
    others = [name for name in tensors if "lora_" not in name or "lora_magnitude_vector" in name]
    if factors and not others and not any(bool(tensor.any()) for tensor in factors.values()):
        raise ModelError(f"the adapter changes nothing: all {len(factors)} of its B factors are zero", where=str(folder), hint=hint)


def _other_model(folder: Path, detail: str) -> ModelError:
    return ModelError(
        f"the adapter does not fit this model: {detail}", where=str(folder), hint="load it onto the model that it was tuned from"
    )
