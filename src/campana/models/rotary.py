"""Rotary frequencies that follow the longest sequence of a pass: whoever shares a pass would change everybody's numbers.

refuse_following(model, longest=1256, hint="lower max_length to 4096")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from campana.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def rotary_types(config: Any) -> dict[str, Mapping[str, Any]]:
    """Type (`default`, `linear`, `longrope`, ...) -> its parameters, over all kinds of layers; {} for a model without rotary positions."""
    found: Any = getattr(config.get_text_config(), "rope_parameters", None) or {}
    each = [found] if "rope_type" in found else [value for value in found.values() if isinstance(value, Mapping)]
    return {str(parameters.get("rope_type", "default")): parameters for parameters in each}


def refuse_following(model: PreTrainedModel, longest: int, hint: str) -> None:
    """ModelError where a sequence of `longest` tokens changes the frequencies of all others in its pass (longrope, dynamic)."""
    config: Any = model.config.get_text_config()
    for kind, parameters in rotary_types(config).items():
        if kind not in ("longrope", "dynamic"):
            continue
        original = parameters.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        most = int(original or config.max_position_embeddings)
        if longest > most:
            told = (
                f"with sequences of {longest:,} tokens, above {most:,}, this model's rotary positions ({kind}) follow the longest of a pass"
            )
            raise ModelError(told, hint=hint.format(most=most))
