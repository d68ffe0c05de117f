"""From a pack to its loss: the one place where the loop touches a transformers model.

network = Network.of(model, precision="fp32")
loss = network.loss(pack, weight=1 / num_supervised)
loss.backward()
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from campana.native.autograd import rotary_of, turning_files
from campana.tuning import attention
from campana.tuning.head import OutputLayer
from campana.tuning.tied import Made, TiedRows, is_tied

if TYPE_CHECKING:
    from collections.abc import Generator

    from transformers import PreTrainedModel

    from campana.native.compiled import Compiled
    from campana.tuning.packs import Pack


def compute_type(precision: str) -> torch.dtype:
    """The type of a precision's matrix products."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def dropouts_of(model: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """The dropout layers that a method has put in. The base model's own stay off, as is usual in instruction tuning."""
    found = (m for name, m in model.named_modules() if ".lora_dropout." in name)
    return tuple(m for m in found if isinstance(m, torch.nn.Dropout) and m.p > 0)


def base_of(model: Any) -> PreTrainedModel:
    """The transformers model inside a PEFT model, or the model itself."""
    inner = getattr(model, "get_base_model", None)
    return inner() if inner is not None else model


def _lower_frozen(model: PreTrainedModel, compute: torch.dtype) -> None:
    """Store frozen matrices in the type they are multiplied in: half the memory, and no cast in every pass. What learns stays fp32.

    Other frozen weights are copied: one that lies in the mapped file of the model would keep all of it in memory.
    """
    decoder, output = model.get_decoder(), model.get_output_embeddings()
    matrices = [module for module in decoder.modules() if type(module) is torch.nn.Linear]
    if type(output) is torch.nn.Linear:  # else it has an adapter, which would meet two types
        matrices += [output, *(_embeddings(decoder) if _looks_up_once(decoder) else ())]
    narrow = {module.weight for module in matrices}
    for weight in model.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.to(compute if weight in narrow else weight.dtype, copy=True)


def _embeddings(decoder: torch.nn.Module) -> list[Any]:
    return [module for module in decoder.modules() if isinstance(module, torch.nn.Embedding)]


def _looks_up_once(decoder: torch.nn.Module) -> bool:
    """Whether tokens are looked up in one embedding: several look tokens or positions up in their own ways, and need the ids."""
    return len(_embeddings(decoder)) == 1


@dataclass(frozen=True, eq=False)
class Network:
    """A model that is ready to be run on packs."""

    model: PreTrainedModel
    """The transformers model, adapters in place."""
    decoder: torch.nn.Module
    head: OutputLayer
    compute: torch.dtype
    """Arithmetic of the matrix products."""
    whole_packs: bool
    """Whether packs may hold more than one row; else this architecture would let rows see each other, or attends as only it can, and
    each is run alone."""
    compiled: Compiled | None
    """What computes on a CPU between the matrix products; None: torch."""
    turning: tuple[str, ...]
    """The files of transformers whose rotary positions are `compiled`'s."""
    padding: int | None
    """The token whose row of a tied embedding does not learn from being looked up."""
    own_attention: str
    """transformers' name of the attention that the model came with."""

    @classmethod
    def of(cls, model: Any, precision: str, compiled: Compiled | None = None) -> Network:
        """Put our attention into the model, in place, where its layers allow it."""
        base = base_of(model)
        own: Any = base.config._attn_implementation  # pyright: ignore[reportPrivateUsage]  # transformers has no public getter
        compute = compute_type(precision)
        if compute != torch.float32:
            _lower_frozen(base, compute)
        whole = attention.supports(base.config)
        if whole:
            attention.register()
            base.set_attn_implementation(attention.NAME)
        elementwise = None if compiled is None else compiled.elementwise
        turning = () if elementwise is None else turning_files(base, elementwise)
        embedding: Any = base.get_input_embeddings()
        padding, made = None, None
        if is_tied(base) and _looks_up_once(base.get_decoder()):
            padding, embedding.padding_idx, made = embedding.padding_idx, None, Made()
        head = OutputLayer.of(base, compute, elementwise, made)
        return cls(base, base.get_decoder(), head, compute, whole, compiled, turning, padding, own)

    def apart(self) -> Network:
        """The same with each row run by itself, by the attention that the model came with."""
        self.model.set_attn_implementation(self.own_attention)
        return replace(self, whole_packs=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def hidden(self, pack: Pack) -> Tensor:
        """The last hidden states at the predicting positions, (N, D)."""
        extra: dict[str, Any] = (
            {"segments": pack.segments, "compiled": self.compiled and self.compiled.attention} if self.whole_packs else {}
        )
        with self._arithmetic():
            given = self._inputs(pack.ids)
            outputs = self.decoder(**given, position_ids=pack.positions[None], use_cache=False, **extra)
        return outputs.last_hidden_state[0].index_select(0, pack.predicting)

    def loss(self, pack: Pack, weight: float) -> Tensor:
        """`weight` times the summed cross-entropy of the pack's supervised tokens."""
        return self.head.loss(self.hidden(pack), pack.targets, weight)

    def _inputs(self, ids_T: Tensor) -> dict[str, Tensor]:
        """The decoder's keyword argument for the ids.

        Rows of an embedding that is stored narrower are looked up here, in fp32, so that no sum is narrowed; and those of one that is the
        output layer too, whose gradients are made together.
        """
        embedding: Any = self.model.get_input_embeddings()
        if self.head.made is not None:
            rows: Any = TiedRows.apply(embedding.weight, ids_T, self.padding, self.head.made)
        elif isinstance(embedding, torch.nn.Embedding) and embedding.weight.dtype != torch.float32:
            rows = embedding.weight[ids_T].float()
        else:
            return {"input_ids": ids_T[None]}
        places = torch.arange(len(ids_T), device=ids_T.device)  # the layer itself is called, for some scale what they look up
        return {"inputs_embeds": torch.func.functional_call(embedding, {"weight": rows}, (places,))[None]}

    @contextlib.contextmanager
    def _arithmetic(self) -> Generator[None]:
        turned = contextlib.nullcontext() if self.compiled is None else rotary_of(self.turning, self.compiled.elementwise)
        narrow = self.compute != torch.float32
        with torch.autocast(self.device.type, dtype=self.compute) if narrow else contextlib.nullcontext(), turned:
            yield
