"""Operations of an encoder with a span head, by the work that it really does: no padding.

    ReaderShape.of(model).forward_flops(num_tokens=1900, sum_squared_lengths=310_000)

Matrix products alone are counted: 2 a token and weight in a forward pass, 4 more in a backward pass (Kaplan et al. 2020, section 2.1), and
attention's two products, 4 a layer, width and pair of tokens, and 8 more in a backward pass. A layer that is called several times, as
ALBERT's is, counts each time. What DeBERTa does with its relative positions is not counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ReaderShape:
    """What an encoder's work depends on."""

    num_weights: int
    """Of all linear layers, as often as a token goes through them."""
    num_layers: int
    width: int
    """Of all heads of a layer together."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> ReaderShape:
        """The shape of a model in memory, which reads one token, so that the calls of each layer can be counted."""
        import torch
        from transformers.pytorch_utils import Conv1D

        config: Any = model.config
        layers = [module for module in model.modules() if isinstance(module, (torch.nn.Linear, Conv1D))]  # GPT-2's are the latter
        calls: Counter[torch.nn.Module] = Counter()

        def count(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            del inputs
            calls[layer] += output.numel() == output.shape[-1]  # not on a table of positions

        hooks = [layer.register_forward_hook(count) for layer in layers]
        token = torch.ones((1, 1), dtype=torch.int64, device=model.device)
        with torch.no_grad():
            model.base_model(input_ids=token, attention_mask=token)
        for hook in hooks:
            hook.remove()
        num_weights = sum(max(1, calls[layer]) * layer.weight.numel() for layer in layers)  # 1: the head's, which was not called
        heads_width = config.num_attention_heads * config.head_dim if getattr(config, "head_dim", None) else config.hidden_size
        return cls(num_weights, config.num_hidden_layers, heads_width)

    def forward_flops(self, num_tokens: int, sum_squared_lengths: int) -> int:
        """Of reading rows of that many tokens together, whose lengths' squares have that sum."""
        return 2 * self.num_weights * num_tokens + 4 * self.num_layers * self.width * sum_squared_lengths

    def training_flops(self, num_tokens: int, sum_squared_lengths: int) -> int:
        """Of a forward and a backward pass over them."""
        return 3 * self.forward_flops(num_tokens, sum_squared_lengths)
