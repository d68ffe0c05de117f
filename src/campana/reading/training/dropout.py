"""Dropout whose noise is a function of a seed and a step, and cheap to draw on a CPU.

    noise = Noise(seed=0)
    replace_dropout(model, 0.1, noise)
    noise.at(step)                        # before the first forward pass of a step

torch draws one 32-bit number a value on one thread, 20% of a training step of MiniLM-L6; here a byte is drawn a value, by SFC64. So a
rate is a multiple of 1/256: 0.1 becomes 26/256 = 0.1016.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from campana.reading.span_model import is_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

QUERIES = ("query", "query_proj", "q_lin", "qkv", "q", "c_attn")
"""What attention layers call their query projection."""
OF_HIDDEN_STATES = ("output_dropout", "resid_dropout")
"""What attention layers call a dropout of hidden states (ALBERT, GPT-2)."""
OUTPUTS = ("o_proj", "down_proj", "out_proj", "fc2")
"""What decoders call the last matrix of attention and of the feed-forward part."""


class Noise:
    """The source of all dropout of a run. Nothing of it is stored in a checkpoint: a step's noise follows from seed and step."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.at(0)

    def at(self, step: int) -> None:
        """Begin a step."""
        self._generator = np.random.Generator(np.random.SFC64([self._seed, step]))

    def bytes(self, count: int) -> Tensor:
        """`count` uniform bytes."""
        return torch.frombuffer(bytearray(self._generator.bytes(count)), dtype=torch.uint8)


class ByteDropout(nn.Module):
    """Zeroes a share of the values in training and scales the others up; does nothing in evaluation."""

    def __init__(self, rate: float, noise: Noise) -> None:
        super().__init__()
        self.dropped = round(rate * 256)
        self._noise = noise

    def forward(self, values: Tensor) -> Tensor:
        """The values of the same shape, with a share of them zero."""
        if not self.training or not self.dropped:
            return values
        kept = self._noise.bytes(values.numel()).view(values.shape) >= self.dropped
        return values * kept.to(values.device, values.dtype).mul_(256 / (256 - self.dropped))


def replace_dropout(model: PreTrainedModel, rate: float, noise: Noise) -> int:
    """Put `ByteDropout` in place of the model's dropout of hidden states, and turn off that of attention's weights.

    Returns in how many places hidden states are dropped.

    Attention's would draw heads x L numbers a token, most of all noise: 15% of a step of MiniLM-L6. Attention layers are those that have
    a query projection (some drop hidden states too, by a layer called as in `OF_HIDDEN_STATES`); those that keep a rate instead of a layer
    have it set to 0. A decoder without a layer of dropout gets it where encoders have it: on what attention and feed-forward part give to
    the hidden states; a rate of its own (OPT) is set to 0. Encoders that drop hidden states by a rate (BART) keep it, and torch's noise.
    """
    bare = is_decoder(model.config) and not any(isinstance(module, nn.Dropout) for module in model.modules())
    count = 0
    for module in list(model.modules()):
        of_attention = any(isinstance(getattr(module, name, None), nn.Module) for name in QUERIES)
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Dropout):
                kept = not of_attention or name in OF_HIDDEN_STATES
                setattr(module, name, ByteDropout(rate, noise) if kept else nn.Dropout(0.0))
                count += kept
        for name in ("attention_dropout", "dropout_prob", *(["dropout"] if bare else [])):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
        count += isinstance(own := getattr(module, "dropout", None), float) and own > 0
        for name in OUTPUTS:
            if bare and isinstance(output := getattr(module, name, None), nn.Module):
                _drop_output(output, ByteDropout(rate, noise))
                count += 1
    return count


def _drop_output(layer: nn.Module, dropout: ByteDropout) -> None:
    layer.register_forward_hook(lambda module, _, output: dropout.train(module.training)(output))
