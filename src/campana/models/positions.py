"""Learned positions: a sequence may not be longer than the table of them.

refuse_beyond(model, longest=1256)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from campana.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPARE = 8
"""Rows that such a table may have beside the positions: OPT's and BioGPT's begin at 2."""


def refuse_beyond(model: PreTrainedModel, longest: int) -> None:
    """ModelError where a sequence of `longest` tokens has more than the model has learned positions for. Rotary ones have no table."""
    from torch import nn

    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(most, int) or longest <= most:
        return
    words = model.get_input_embeddings()
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and module is not words]
    if any(most <= table.num_embeddings <= most + SPARE for table in tables):
        raise ModelError(
            f"a row of {longest:,} tokens is longer than the {most:,} positions that {type(model).__name__} has learned",
            hint=f"tune: {{max_length: {most}}}",
        )
