"""The output layer where it counts: cross-entropy at supervised positions, in blocks, its gradient made in the forward pass.

No float matrix of (tokens x vocabulary) ever exists: one block's logits become its loss and its gradients and are dropped.
Owns both forms: a plain linear layer (tied or not) by hand, and any other layer (LoRA or DoRA on the head, dropout) through
autograd, a block at a time. Knows the two ways in which models bend their logits: a scale and a soft-cap.

    head = OutputLayer.of(causal_model)
    loss = head.loss(hidden_ND, targets_N, weight=1 / num_supervised)   # sum over N of the cross-entropy, times weight

Shapes: N supervised positions, B of them in a block, C of these in a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from campana.errors import ModelError
from campana.models.cost import logits_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from campana.native.elementwise import Elementwise
    from campana.tuning.tied import Made

CHUNK_ELEMENTS = 1 << 23
"""Logits of a block that become their gradient at once: 32 MB in fp32."""
SLICE_ELEMENTS = 1 << 21
"""Numbers of the weight that a product on a CPU reads or makes at once: few enough to stay in a cache."""
LAUNCH_ELEMENTS = 1 << 25
"""The same on a GPU (not measured): enough for a launch to be worth it."""
DIVIDED = ("logits_scaling",)
MULTIPLIED = ("logit_scale", "lm_head_multiplier")
"""Names of config fields by which models divide (Granite) or multiply (Cohere, Falcon H1) their logits."""


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """A model's last layer: logits = softcap(scale * layer(hidden))."""

    layer: nn.Module
    scale: float = 1.0
    softcap: float | None = None
    precision: torch.dtype = torch.float32
    """Arithmetic of the matrix products; the loss is fp32 (float64 for float64 weights) in any case."""
    elementwise: Elementwise | None = None
    """What makes logits their gradient on a CPU; None: torch."""
    made: Made | None = None
    """Where the matrix's gradient is told of in the backward pass, for the embedding that shares the matrix; None: nowhere."""

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        precision: torch.dtype = torch.float32,
        elementwise: Elementwise | None = None,
        made: Made | None = None,
    ) -> OutputLayer:
        """The output layer of a causal language model. `proof.proven` shows that it computes what the model computes."""
        layer = model.get_output_embeddings()
        if layer is None:
            raise ModelError(f"{type(model).__name__} has no output layer", hint="tune a causal language model")
        config: Any = model.config.get_text_config()
        scale = 1.0
        for name in DIVIDED:
            scale /= getattr(config, name, None) or 1.0
        for name in MULTIPLIED:
            scale *= getattr(config, name, None) or 1.0
        if type(model).__name__.startswith("HyperCLOVAX"):  # it multiplies by the field that Granite divides by
            scale = float(getattr(config, "logits_scaling", None) or 1.0)
        return cls(layer, scale, getattr(config, "final_logit_softcapping", None), precision, elementwise, made)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V), for a few positions: what the loss is computed from."""
        dtype = next(self.layer.parameters()).dtype  # an adapted layer stays fp32 where hidden states are bf16
        return self._bend(self.layer(hidden_ND.to(dtype)))

    def loss(self, hidden_ND: Tensor, targets_N: Tensor, weight: float) -> Tensor:
        """`weight` times the summed cross-entropy, a 0-d tensor that carries gradients; 0 where N is 0."""
        if targets_N.numel() == 0:
            return hidden_ND.sum() * 0.0
        layer = self.layer
        if type(layer) is nn.Linear:
            inputs = map(_asked, (hidden_ND, layer.weight, layer.bias))
            return cast("Tensor", LinearCrossEntropy.apply(*inputs, targets_N, weight, self))
        learning = (_asked(p) for p in layer.parameters() if p.requires_grad)
        return cast("Tensor", LayerCrossEntropy.apply(_asked(hidden_ND), targets_N, weight, self, *learning))

    def blocks(self, count: int, compute: torch.dtype, *, learns: bool, spared: int = 0) -> list[slice]:
        """Positions whose logits exist at once, of `count`. `spared`: bytes that one block, where it is all, may take more."""
        vocabulary: Any = getattr(self.layer, "out_features", None) or getattr(self.layer, "weight").shape[0]  # noqa: B009 (a plain module's attribute)
        each, most = int(vocabulary) * compute.itemsize, logits_bytes(learns=learns)
        return _slices(count, (most + spared if count * each <= most + spared else most) // each)

    def _bend(self, logits: Tensor) -> Tensor:
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def _asked(x: Tensor | None) -> Tensor | None:
    """The tensor, as one that learns only where gradients are wanted: under `no_grad` torch tells a function all the same what could
    learn, and ours make gradients in their forward pass.
    """
    return x if x is None or torch.is_grad_enabled() else x.detach()


def _slices(count: int, size: int) -> list[slice]:
    """0 to `count` in slices of even lengths of at most `size` (at least 16)."""
    parts = max(1, -(-count // max(16, size)))
    length = max(1, -(-count // parts))
    return [slice(start, min(start + length, count)) for start in range(0, count, length)]


def _cross_entropy_(logits_BV: Tensor, bias_V: Tensor | None, targets_B: Tensor, head: OutputLayer) -> Tensor:
    """The summed cross-entropy; `logits_BV`, as they come from the product, become its gradient by head.scale times them, in place."""
    elementwise = head.elementwise
    if elementwise is not None and bias_V is None and head.softcap is None and head.scale > 0 and elementwise.scores(logits_BV):
        return elementwise.cross_entropy_(logits_BV, targets_B, head.scale)
    total = logits_BV.new_zeros((), dtype=torch.float64)
    for rows in _slices(targets_B.numel(), CHUNK_ELEMENTS // logits_BV.shape[1]):
        total += _cross_entropy_of_chunk_(logits_BV[rows], bias_V, targets_B[rows], head)
    return total


def _cross_entropy_of_chunk_(logits_CV: Tensor, bias_V: Tensor | None, targets_C: Tensor, head: OutputLayer) -> Tensor:
    place_C1 = targets_C.unsqueeze(1)
    wide_CV = logits_CV.float() if logits_CV.dtype in (torch.bfloat16, torch.float16) else logits_CV
    if bias_V is not None:
        wide_CV += bias_V
    if head.scale != 1.0:
        wide_CV *= head.scale
    slope_CV = None
    if head.softcap is not None:
        wide_CV.div_(head.softcap).tanh_()
        slope_CV = 1.0 - wide_CV.square()  # d softcap(z) / dz
        wide_CV *= head.softcap
    found_CV = torch.softmax(wide_CV, dim=1)
    # the logarithm of softmax's denominator, from the largest logit and what became of it: torch.logsumexp takes much longer
    logsumexp_C1 = wide_CV.amax(1, keepdim=True) - found_CV.amax(1, keepdim=True).log_()
    loss = (logsumexp_C1 - wide_CV.gather(1, place_C1)).sum()
    found_CV.scatter_add_(1, place_C1, found_CV.new_full(place_C1.shape, -1.0))
    logits_CV.copy_(found_CV if slope_CV is None else found_CV.mul_(slope_CV))
    return loss


class LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a plain linear output layer. The backward pass only hands out what the forward pass has made.

    Products go through a slice of the vocabulary at a time, so that no narrow copy of the weight exists: they are as fast as whole ones,
    and faster where it is large (benchmarks/NOTES.md). Where packs before have left a gradient of the weight, and one block of logits is
    all, that block waits for the backward pass, which adds its product to theirs: no second gradient lies beside the activations. (A first
    pack's is needed in any case; made so late, it would find no gap of its size.) So with a gradient in place, `torch.autograd.grad` adds
    to it too, and hands nothing out.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, weight: float, head: OutputLayer
    ) -> Tensor:
        """Returns the weighted sum, 0-d."""
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        compute = head.precision if weight_VD.dtype == torch.float32 else weight_VD.dtype
        total = weight_VD.new_zeros((), dtype=torch.float64)
        adds = needs_weight and weight_VD.is_leaf and weight_VD.grad is not None
        blocks = head.blocks(targets_N.numel(), compute, learns=needs_weight, spared=weight_VD.nbytes if adds else 0)
        waits = adds and len(blocks) == 1
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = torch.empty_like(weight_VD) if needs_weight and not waits else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias and bias_V is not None else None
        factor = weight * head.scale
        ctx.waiting = None
        for rows in blocks:
            hidden_BD = hidden_ND[rows].to(compute)
            grad_BV = _logits(hidden_BD, weight_VD)
            total += _cross_entropy_(grad_BV, bias_V, targets_N[rows], head)
            if grad_bias is not None:
                grad_bias.add_(grad_BV.sum(0, dtype=grad_bias.dtype), alpha=factor)
            if grad_hidden is not None:
                grad_hidden[rows] = _times(grad_BV, weight_VD).mul_(factor)
            if grad_weight is not None:
                _put_product_(grad_weight, grad_BV.t(), hidden_BD, factor, add=rows.start > 0)
            if waits:
                ctx.waiting = grad_BV, hidden_BD, factor, weight_VD
            del grad_BV  # before the next block's are made
        ctx.grads = (grad_hidden, grad_weight, grad_bias)
        ctx.made = head.made
        return (total * weight).to(torch.float64 if weight_VD.dtype == torch.float64 else torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """What the forward pass made, times the incoming gradient where that is not one."""
        hidden, weight, bias = _handed_out(ctx, grads[0])
        so_far = None
        if ctx.waiting is not None:
            (grad_BV, hidden_BD, factor, weight_VD), ctx.waiting = ctx.waiting, None
            so_far = weight_VD.grad
            weight = torch.empty_like(weight_VD) if so_far is None else so_far
            _put_product_(weight, grad_BV.t(), hidden_BD, factor * grads[0].item(), add=so_far is not None)
        if ctx.made is not None:
            ctx.made.grad = weight
        return hidden, weight if so_far is None else None, bias, None, None, None


def _vocabulary(weight_VD: Tensor) -> list[slice]:
    """Rows of the weight whose products are made at once."""
    size = SLICE_ELEMENTS if weight_VD.device.type == "cpu" else LAUNCH_ELEMENTS
    return _slices(weight_VD.shape[0], size // weight_VD.shape[1])


def _logits(hidden_BD: Tensor, weight_VD: Tensor) -> Tensor:
    """hidden @ weight', (B, V), in the type of `hidden_BD`."""
    logits_BV = hidden_BD.new_empty(hidden_BD.shape[0], weight_VD.shape[0])
    for rows in _vocabulary(weight_VD):
        torch.mm(hidden_BD, weight_VD[rows].to(hidden_BD.dtype).t(), out=logits_BV[:, rows])
    return logits_BV


def _times(grad_BV: Tensor, weight_VD: Tensor) -> Tensor:
    """grad @ weight, (B, D): each slice's product in the type of `grad_BV`, their sum in fp32 (float64 for float64)."""
    total_BD = grad_BV.new_zeros(grad_BV.shape[0], weight_VD.shape[1], dtype=torch.promote_types(grad_BV.dtype, torch.float32))
    for rows in _vocabulary(weight_VD):
        total_BD += grad_BV[:, rows] @ weight_VD[rows].to(grad_BV.dtype)
    return total_BD


def _put_product_(total_VD: Tensor, left_VB: Tensor, right_BD: Tensor, factor: float, *, add: bool) -> None:
    """total = factor * (left @ right), in place; `add`: added to what is there, which else is not read."""
    for rows in _vocabulary(total_VD):
        product = left_VB[rows] @ right_BD
        if add:
            total_VD[rows].add_(product, alpha=factor)
        else:
            total_VD[rows].copy_(product).mul_(factor)


class LayerCrossEntropy(torch.autograd.Function):
    """Cross-entropy of any output layer: autograd runs through one chunk at a time, inside the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, targets_N: Tensor, weight: float, head: OutputLayer, *learning: nn.Parameter) -> Tensor:
        """Returns the weighted sum, 0-d."""
        needs_hidden = ctx.needs_input_grad[0]
        total = hidden_ND.new_zeros((), dtype=torch.float64)
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        wanted = any(ctx.needs_input_grad)
        grad_learning = [torch.zeros_like(p) for p in learning if wanted]
        for rows in head.blocks(targets_N.numel(), torch.float32, learns=False):
            with torch.set_grad_enabled(wanted):
                hidden_BD = hidden_ND[rows].detach().requires_grad_(wanted)
                loss = nn.functional.cross_entropy(head.logits(hidden_BD), targets_N[rows], reduction="sum")
                weighted = loss * weight
            total += loss.detach()
            if not wanted:
                continue
            found: Any = torch.autograd.grad(weighted, [hidden_BD, *learning], allow_unused=True)  # None where unused
            if grad_hidden is not None and found[0] is not None:
                grad_hidden[rows] = found[0]
            for whole, part in zip(grad_learning, found[1:], strict=True):
                if part is not None:
                    whole.add_(part)
        ctx.grads = (grad_hidden, *grad_learning)
        return (total * weight).to(torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """What the forward pass made, times the incoming gradient where that is not one."""
        hidden, *learning = _handed_out(ctx, grads[0])
        return (hidden, None, None, None, *learning)


def _handed_out(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    made: tuple[Tensor | None, ...] = ctx.grads
    if not made:
        raise RuntimeError("the gradients of this loss were handed out already: compute it again for another backward pass")
    ctx.grads = ()  # nothing else holds them now, so autograd adds a tied embedding's gradient in place
    factor = grad.item()
    return made if factor == 1.0 else tuple(None if g is None else g * factor for g in made)
