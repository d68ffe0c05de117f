"""Attention of a reader's rows by compiled code, on a CPU. Registered with transformers under a name for each type of numbers.

    if use_compiled(model, compiled): ...      # else the model is as it was

A row attends to its own tokens and its padding to itself, as two segments of one pack: no mask, no scores of padding. A model takes it
where its layers ask for nothing else (positions in the scores, an encoder's windows, dropout of weights), and compute the same by it on
numbers. A decoder's layers look back only, and their windows are known.

Shapes: B rows, L their padded length, H heads, D head size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from campana.errors import ModelError
from campana.native.autograd import CompiledAttention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from campana.native.compiled import Compiled

NAMES = {torch.bfloat16: "campana_rows_bf16", torch.float32: "campana_rows_fp32"}
REFUSED = ("s_aux", "position_bias", "softcap", "head_mask", "is_causal")
"""Keyword arguments by which a layer asks for what is not computed here."""
ROUNDING = {torch.bfloat16: 0.03, torch.float32: 1e-4}
"""Of the last hidden states, as a share of their size, by which two ways of computing may differ; a lost mask differs by more."""


def use_compiled(model: PreTrainedModel, compiled: Compiled | None) -> bool:
    """Put the compiled attention into the model, in place; False, and nothing is changed, where there is none or it does not fit."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    if compiled is None or model.device.type != "cpu" or not getattr(model, "_supports_attention_backend", False):
        return False

    def attend(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bounds: Tensor,
        *,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """transformers' attention interface: (B, H, L, D) three times -> (B, L, H, D)."""
        rows = [x.transpose(1, 2).flatten(0, 1) for x in (query, key, value)]
        causal = bool(getattr(module, "is_causal", False))
        if dropout or (sliding_window and not causal) or any(kwargs.get(name) for name in REFUSED):
            raise ModelError(f"{type(module).__name__} asks for more than attention")
        if value.dtype != compiled.dtype:
            return _plain(query, key, value, bounds, scaling, sliding_window, causal), None
        if not compiled.attention.takes(rows[0], rows[2]):
            raise ModelError(f"{type(module).__name__} has heads of {query.shape[-1]}, which are not compiled for")
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        out = cast(
            "Tensor", CompiledAttention.apply(*rows, bounds, scale, sliding_window, causal, compiled.attention)
        )  # autograd's apply takes no names
        return out.view(query.shape[0], query.shape[2], *out.shape[1:]), None

    name = NAMES[compiled.dtype]
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, bounds_of)
    before: Any = model.config._attn_implementation  # pyright: ignore[reportPrivateUsage]  # transformers has no public getter
    expected = _tried(model, compiled.dtype)
    try:
        model.set_attn_implementation(name)
        found = _tried(model, compiled.dtype)
    except ModelError:
        found = torch.full_like(expected, torch.inf)
    if float((found - expected).norm()) < ROUNDING[compiled.dtype] * float(expected.norm()):
        return True
    model.set_attn_implementation(before)
    return False


def _plain(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scaling: float | None, window: int | None, causal: bool) -> Tensor:
    """The same by torch, for numbers of another type."""
    num_rows, _, length, _ = query.shape
    segment_BL = torch.searchsorted(bounds, torch.arange(num_rows * length), right=True).view(num_rows, length)
    together = (segment_BL[:, :, None] == segment_BL[:, None, :])[:, None]
    if causal:
        behind_LL = torch.arange(length)[:, None] - torch.arange(length)
        together = together & (behind_LL >= 0) & (behind_LL < (window or length))
    grouped = query.shape[1] != key.shape[1]
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=together, scale=scaling, enable_gqa=grouped)
    return out.transpose(1, 2).contiguous()


def bounds_of(batch_size: int, q_length: int, *, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
    """transformers' mask interface, and in place of a mask the segments' bounds: int32, ascending, from 0 to B L.

    `attention_mask`: (B, L), ones and then zeros in each row.
    """
    first_B = torch.arange(batch_size) * q_length
    bounds = [first_B, first_B.new_tensor([batch_size * q_length])]
    if attention_mask is not None:
        if (attention_mask[:, 1:].bool() & ~attention_mask[:, :-1].bool()).any():
            raise ModelError("a row has padding before its tokens")
        bounds.append(first_B + attention_mask.sum(1))
    return torch.cat(bounds).unique(sorted=True).int()


def _tried(model: PreTrainedModel, compute: torch.dtype) -> Tensor:
    """Last hidden states of the tokens of two rows, one of them padded."""
    tokens = torch.arange(2 * 40).view(2, 40) % int(model.config.vocab_size or 2)
    mask = (torch.arange(40) < torch.tensor([[40], [23]])).long()
    training = model.training
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=compute == torch.bfloat16):
        hidden: Tensor = model.eval().base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
    model.train(training)
    return hidden.float()[mask.bool()]
