"""The output layer where it counts: cross-entropy at supervised positions, in chunks, its gradient made in the forward pass.

No float matrix of (tokens x vocabulary) ever exists: one chunk's logits become its loss and its gradients and are dropped.
Owns both forms: a plain linear layer (tied or not) by hand, and any other layer (LoRA or DoRA on the head, dropout) through
autograd, a chunk at a time. Knows the two ways in which models bend their logits: a scale and a soft-cap.

    head = OutputLayer.of(causal_model)
    loss = head.loss(hidden_ND, targets_N, weight=1 / num_supervised)   # sum over N of the cross-entropy, times weight

Shapes: N supervised positions, C of them in a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from campana.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_ELEMENTS = 1 << 24
"""Most logits that exist at once: 64 MB in fp32 (benchmarks/NOTES.md, Tuning)."""
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

    @classmethod
    def of(cls, model: PreTrainedModel, precision: torch.dtype = torch.float32) -> OutputLayer:
        """The output layer of a causal language model. `proof.prove` shows that it computes what the model computes."""
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
        return cls(layer, scale, getattr(config, "final_logit_softcapping", None), precision)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V), for a few positions: what the loss is computed from."""
        return self._bend(self.layer(hidden_ND))

    def loss(self, hidden_ND: Tensor, targets_N: Tensor, weight: float) -> Tensor:
        """`weight` times the summed cross-entropy, a 0-d tensor that carries gradients; 0 where N is 0."""
        if targets_N.numel() == 0:
            return hidden_ND.sum() * 0.0
        layer = self.layer
        if type(layer) is nn.Linear:
            return cast("Tensor", LinearCrossEntropy.apply(hidden_ND, layer.weight, layer.bias, targets_N, weight, self))
        learning = tuple(p for p in layer.parameters() if p.requires_grad)
        return cast("Tensor", LayerCrossEntropy.apply(hidden_ND, targets_N, weight, self, *learning))

    def chunk(self) -> int:
        """Positions whose logits exist at once."""
        vocabulary: Any = getattr(self.layer, "out_features", None) or getattr(self.layer, "weight").shape[0]  # noqa: B009 (a plain module's attribute)
        return max(16, CHUNK_ELEMENTS // int(vocabulary))

    def _bend(self, logits: Tensor) -> Tensor:
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def _cross_entropy_(logits_CV: Tensor, targets_C: Tensor) -> Tensor:
    """The summed cross-entropy; `logits_CV` becomes its gradient, softmax minus one-hot, in place."""
    rows = torch.arange(targets_C.numel(), device=logits_CV.device)
    picked = logits_CV[rows, targets_C]
    logsumexp = torch.logsumexp(logits_CV, dim=1, keepdim=True)
    loss = (logsumexp.squeeze(1) - picked).sum()
    logits_CV.sub_(logsumexp).exp_()
    logits_CV[rows, targets_C] -= 1.0
    return loss


class LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a plain linear output layer. The backward pass only hands out what the forward pass has made."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, weight: float, head: OutputLayer
    ) -> Tensor:
        """Returns the weighted sum, 0-d."""
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        compute = head.precision if weight_VD.dtype == torch.float32 else weight_VD.dtype
        matrix_VD = weight_VD.to(compute)
        total = weight_VD.new_zeros((), dtype=torch.float64)
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias and bias_V is not None else None
        for start in range(0, targets_N.numel(), head.chunk()):
            stop = min(start + head.chunk(), targets_N.numel())
            hidden_CD = hidden_ND[start:stop].to(compute)
            logits_CV = hidden_CD @ matrix_VD.t()
            if logits_CV.dtype in (torch.bfloat16, torch.float16):
                logits_CV = logits_CV.float()
            if bias_V is not None:
                logits_CV += bias_V
            if head.scale != 1.0:
                logits_CV *= head.scale
            slope_CV = None
            if head.softcap is not None:
                logits_CV.div_(head.softcap).tanh_()
                slope_CV = 1.0 - logits_CV.square() if any(ctx.needs_input_grad) else None  # d softcap(z) / dz
                logits_CV *= head.softcap
            total += _cross_entropy_(logits_CV, targets_N[start:stop])
            if not any(ctx.needs_input_grad):
                continue
            if slope_CV is not None:
                logits_CV *= slope_CV
            grad_CV = logits_CV.mul_(weight * head.scale)
            if grad_bias is not None:
                grad_bias += grad_CV.sum(0)
            grad_CV = grad_CV.to(compute)
            if grad_hidden is not None:
                grad_hidden[start:stop] = grad_CV @ matrix_VD
            if grad_weight is None:
                continue
            if grad_weight.dtype == compute:
                grad_weight.addmm_(grad_CV.t(), hidden_CD)
            else:
                grad_weight += grad_CV.t() @ hidden_CD
        ctx.grads = (grad_hidden, grad_weight, grad_bias)
        return (total * weight).to(torch.float64 if weight_VD.dtype == torch.float64 else torch.float32)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """What the forward pass made, times the incoming gradient where that is not one."""
        return (*_handed_out(ctx, grads[0]), None, None, None)


class LayerCrossEntropy(torch.autograd.Function):
    """Cross-entropy of any output layer: autograd runs through one chunk at a time, inside the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, targets_N: Tensor, weight: float, head: OutputLayer, *learning: nn.Parameter) -> Tensor:
        """Returns the weighted sum, 0-d."""
        needs_hidden = ctx.needs_input_grad[0]
        total = hidden_ND.new_zeros((), dtype=torch.float64)
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_learning = [torch.zeros_like(p) for p in learning]
        wanted = any(ctx.needs_input_grad)
        for start in range(0, targets_N.numel(), head.chunk()):
            stop = min(start + head.chunk(), targets_N.numel())
            with torch.set_grad_enabled(wanted):
                hidden_CD = hidden_ND[start:stop].detach().requires_grad_(wanted)
                loss = nn.functional.cross_entropy(head.logits(hidden_CD), targets_N[start:stop], reduction="sum")
                weighted = loss * weight
            total += loss.detach()
            if not wanted:
                continue
            found: Any = torch.autograd.grad(weighted, [hidden_CD, *learning], allow_unused=True)  # None where unused
            if grad_hidden is not None and found[0] is not None:
                grad_hidden[start:stop] = found[0]
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
    factor = grad.item()
    return made if factor == 1.0 else tuple(None if g is None else g * factor for g in made)
