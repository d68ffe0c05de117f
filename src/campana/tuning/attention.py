"""Attention over a pack: every sample attends to itself only, causally. Registered with transformers as `campana_segments`.

Owns: the CPU forms (compiled; or torch's kernel with segments of like length in one call, its gradient written out), the
plain form for soft-caps, and the CUDA form (torch's variable-length flash attention). Grouped queries and sliding windows are exact in
all.
Refuses, by name: attention dropout, sinks, position biases, and layers whose pattern it does not know.

    register()
    model.set_attn_implementation(NAME)
    model.get_decoder()(input_ids, position_ids=..., segments=Segments.of(lengths), use_cache=False)

Shapes: T tokens of the pack, H query heads, K key/value heads, D head size, B segments of a group, L its longest.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from campana.errors import ModelError
from campana.models.products import torchs_products
from campana.native.autograd import CompiledAttention

if TYPE_CHECKING:
    from campana.native.attention import Attention
    from campana.tuning.segments import Group, Segments

NAME = "campana_segments"
LONG = 256
"""Tokens from which torch's kernel is no slower with the products that its caller asked for (benchmarks/NOTES.md, Products)."""
KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Layer types whose pattern `attend` computes; others (chunked, linear, recurrent) mix samples of a pack or need their own mask."""
REFUSED = ("s_aux", "position_bias", "head_mask", "cache", "indexer_topk", "block_mask")
"""Keyword arguments that would change the result and that this attention does not compute."""


def register() -> None:
    """Make the attention known to transformers. Calling it again changes nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def supports(config: Any) -> bool:
    """Whether every layer of the model attends in a way that packs can be computed for."""
    kinds = getattr(config.get_text_config(), "layer_types", None) or ()
    return set(kinds) <= KNOWN_LAYERS and getattr(config, "is_causal", True)


@dataclass(frozen=True, eq=False)
class Pattern:
    """What of a layer's attention is not a tensor of the model."""

    segments: Segments
    scale: float
    window: int | None
    """A query sees this many keys, its own included; None: all before it."""
    softcap: float | None = None

    def mask(self, group: Group, like: Tensor) -> Tensor | None:
        """Additive (L, L) where the window matters in this group: 0 where 0 <= query - key < window, else -inf."""
        return None if self.window is None or self.window >= group.longest else _band(group.longest, self.window, like)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H, D).

    `kwargs` must hold `segments`, and may hold `compiled`, which `forward.Network` passes through the model.
    """
    segments: Segments | None = kwargs.get("segments")
    compiled: Attention | None = kwargs.get("compiled")
    name = type(module).__name__
    if segments is None:
        raise ModelError(f"{name} does not pass its keyword arguments on to attention", hint="this architecture cannot be trained in packs")
    unknown = [argument for argument in REFUSED if kwargs.get(argument) is not None]
    if attention_mask is not None or unknown or dropout or kwargs.get("is_causal") is False:
        raise ModelError(f"{name} asks for attention that packs do not support: {unknown or 'a mask, dropout or no causality'}")
    if query.shape[0] != 1 or query.shape[2] != segments.num_tokens or key.shape[2] != segments.num_tokens:
        raise ModelError(f"{name} attends over {tuple(query.shape)}, which is not the pack of {segments.num_tokens} tokens")
    window: int | None = kwargs.get("sliding_window")
    if window is None and _is_sliding(module):
        raise ModelError(f"{name} is a sliding-window layer but does not say its window")
    scale = scaling if scaling is not None else 1.0 / math.sqrt(query.shape[-1])
    pattern = Pattern(segments, scale, window, kwargs.get("softcap"))
    q_THD, k_TKD, v_TKD = (x[0].transpose(0, 1) for x in (query, key, value))
    if q_THD.dtype != v_TKD.dtype:  # under autocast, rotary positions leave queries and keys in fp32
        q_THD, k_TKD = q_THD.to(v_TKD.dtype), k_TKD.to(v_TKD.dtype)
    narrow_values = value.shape[-1] != query.shape[-1]  # DeepSeek's: no kernel here takes them
    if pattern.softcap is not None or narrow_values or (query.is_cuda and v_TKD.dtype == torch.float32):
        out_THD = _plain(q_THD, k_TKD, v_TKD, pattern)
    elif query.is_cuda:
        out_THD = _varlen(q_THD, k_TKD, v_TKD, pattern)
    elif compiled is not None and compiled.takes(q_THD, v_TKD):
        pack = (segments.boundaries, scale, window, True, compiled)
        out_THD = cast("Tensor", CompiledAttention.apply(q_THD, k_TKD, v_TKD, *pack))
    else:
        out_THD = cast("Tensor", SegmentAttention.apply(q_THD, k_TKD, v_TKD, pattern))
    return out_THD.unsqueeze(0), None


class SegmentAttention(torch.autograd.Function):
    """Causal attention within segments by torch's kernel, one call a group of segments.

    Written out, because autograd's own gradient of slicing a pack would write a zero tensor of the whole pack for every slice.
    """

    @staticmethod
    def forward(ctx: Any, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, pattern: Pattern) -> Tensor:
        """Returns (T, H, D)."""
        out_THD = q_THD.new_empty(q_THD.shape)
        saved: list[Tensor] = []
        for group in pattern.segments.groups:
            q, k, v = (_rectangle(x, group) for x in (q_THD, k_TKD, v_TKD))
            mask = pattern.mask(group, q)
            fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            with _products_of(group):
                out, logarithms = fused(q, k, v, 0.0, mask is None, attn_mask=mask, scale=pattern.scale)
            _scatter(out_THD, out, group)
            saved += [q, k, v, out, logarithms]
        ctx.save_for_backward(*saved)
        ctx.pattern = pattern
        return out_THD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        (grad_THD,) = grads
        saved: list[Tensor] = list(ctx.saved_tensors)
        pattern: Pattern = ctx.pattern
        grad_qkv = [grad_THD.new_empty(pattern.segments.num_tokens, x.shape[1], x.shape[3]) for x in saved[:3]]
        for group in pattern.segments.groups:
            mine, saved = saved[:5], saved[5:]
            mask = pattern.mask(group, mine[0])
            fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
            grad = _rectangle_of_gradient(grad_THD, group)
            with _products_of(group):
                parts = fused(grad, *mine, 0.0, mask is None, attn_mask=mask, scale=pattern.scale)
            for total_THD, part in zip(grad_qkv, parts, strict=True):
                _scatter(total_THD, part, group)
        return (*grad_qkv, None)


def _products_of(group: Group) -> AbstractContextManager[None]:
    return torchs_products() if group.longest < LONG else nullcontext()


def _is_sliding(module: torch.nn.Module) -> bool:
    kinds = getattr(getattr(module, "config", None), "layer_types", None)
    index = getattr(module, "layer_idx", None)
    return kinds is not None and index is not None and kinds[index] == "sliding_attention"


def _band(length: int, window: int, like: Tensor) -> Tensor:
    position = torch.arange(length, device=like.device)
    distance = position[:, None] - position[None, :]
    allowed = (distance >= 0) & (distance < window)
    return torch.zeros(length, length, dtype=like.dtype, device=like.device).masked_fill_(~allowed, -math.inf)


def _rectangle(x_THD: Tensor, group: Group) -> Tensor:
    """(T, H, D) -> (B, H, L, D), a view of a gathered (B, L, H, D)."""
    return x_THD.index_select(0, group.gather).view(group.num_segments, group.longest, *x_THD.shape[1:]).transpose(1, 2)


def _rectangle_of_gradient(grad_THD: Tensor, group: Group) -> Tensor:
    """As `_rectangle`, but a padding cell is zero: its output is used nowhere."""
    if group.cells is None:
        return _rectangle(grad_THD, group)
    cells = grad_THD.new_zeros(group.num_segments * group.longest, *grad_THD.shape[1:])
    cells.index_copy_(0, group.cells, grad_THD.index_select(0, group.tokens))
    return cells.view(group.num_segments, group.longest, *grad_THD.shape[1:]).transpose(1, 2)


def _cells(part: Tensor, group: Group) -> Tensor:
    """(B, H, L, D) -> (tokens, H, D): the real cells."""
    cells = part.transpose(1, 2).reshape(-1, part.shape[1], part.shape[3])
    return cells if group.cells is None else cells.index_select(0, group.cells)


def _scatter(total_THD: Tensor, part: Tensor, group: Group) -> None:
    total_THD.index_copy_(0, group.tokens, _cells(part, group))


def _plain(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, pattern: Pattern) -> Tensor:
    """The same in plain differentiable operations, with a soft-cap on the scores (Gemma 2): (T, H, D)."""
    repeats = q_THD.shape[1] // k_TKD.shape[1]
    k_THD, v_THD = (x.repeat_interleave(repeats, 1) for x in (k_TKD, v_TKD))
    out_THD = q_THD.new_zeros(*q_THD.shape[:2], v_TKD.shape[2])
    for group in pattern.segments.groups:
        q, k, v = (_rectangle(x, group) for x in (q_THD, k_THD, v_THD))
        scores = (q @ k.transpose(-1, -2)) * pattern.scale
        if pattern.softcap is not None:
            scores = pattern.softcap * torch.tanh(scores / pattern.softcap)
        scores = scores + _band(group.longest, pattern.window or group.longest, scores)
        out = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype) @ v
        out_THD = out_THD.index_copy(0, group.tokens, _cells(out, group))
    return out_THD


def _varlen(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, pattern: Pattern) -> Tensor:
    """Variable-length flash attention on CUDA: (T, H, D)."""
    from torch.nn.attention.varlen import varlen_attn

    segments = pattern.segments
    bounds = segments.boundaries.to(q_THD.device)
    q, k, v = (x.contiguous() for x in (q_THD, k_TKD, v_TKD))
    window = (-1 if pattern.window is None else pattern.window - 1, 0)
    grouped = q.shape[1] != k.shape[1]
    longest = segments.longest
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=pattern.scale, window_size=window, enable_gqa=grouped)
    return cast("Tensor", out)
