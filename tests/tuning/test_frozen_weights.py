"""What is frozen is stored as it is multiplied: the embedding too, whose values still enter the sums of the layers in fp32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from campana.tuning.forward import Network
from campana.tuning.methods.full import Full
from campana.tuning.methods.lora import Lora
from campana.tuning.packs import Pack, packs_of


def model_of(kind: str, **options: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model(kind, vocab_size=50, head_dim=8, **shape, **options)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def one_pack() -> Pack:
    rows = [(np.arange(3, 15), np.array([False] * 4 + [True] * 8)), (np.arange(20, 29), np.array([False] * 2 + [True] * 7))]
    (pack,) = packs_of(rows, 100)
    return pack


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])  # Gemma's embedding multiplies what it looks up
@pytest.mark.parametrize("tied", [True, False])
def test_a_frozen_embedding_is_half_as_large_and_gives_the_same_hidden_states(kind: str, tied: bool) -> None:
    pack, base = one_pack(), model_of(kind, tie_word_embeddings=tied)
    exact = Network.of(Lora(rank=2).prepare(model_of(kind, tie_word_embeddings=tied), 0), "fp32").hidden(pack)
    tuned = Lora(rank=2).prepare(base, 0)
    network = Network.of(tuned, "bf16")
    assert base.get_input_embeddings().weight.dtype == torch.bfloat16
    assert base.get_output_embeddings().weight.dtype == torch.bfloat16
    hidden = network.hidden(pack)
    assert ((hidden - exact).norm() / exact.norm()).item() < 0.03
    network.loss(pack, 0.1).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in tuned.parameters() if p.requires_grad)


def test_what_learns_stays_wide() -> None:
    model = Full().prepare(model_of("llama"), 0)
    Network.of(model, "bf16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_an_adapter_on_the_head_keeps_embedding_and_head_wide() -> None:
    model: Any = Lora(rank=2, targets=("q_proj", "lm_head")).prepare(model_of("llama", tie_word_embeddings=False), 0)
    Network.of(model, "bf16").loss(one_pack(), 0.1).backward()
    assert model.get_base_model().get_input_embeddings().weight.dtype == torch.float32
