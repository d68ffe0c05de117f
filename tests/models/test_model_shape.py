"""Parameter counts equal those of real models."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from campana.errors import ModelError
from campana.models.shape import LAYER_LINEARS, Shape, num_lora_parameters, num_parameters, resolve_targets

# PEFT 0.21 reads a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


LLAMA_7B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
}
LLAMA_13B = {**LLAMA_7B, "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "intermediate_size": 13824}
SMOLLM2 = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "tie_word_embeddings": True,
}
QWEN25 = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("config", "published"), [(LLAMA_7B, 6_738_415_616), (LLAMA_13B, 13_015_864_320), (SMOLLM2, 134_515_008), (QWEN25, 494_032_768)]
)
def test_parameters_of_published_models(config: dict[str, Any], published: int) -> None:
    assert num_parameters(Shape.from_config(config)) == published


@pytest.mark.parametrize(("config", "published"), [(LLAMA_7B, 17_891_328), (LLAMA_13B, 28_016_640)])
def test_lora_parameters_of_the_papers(config: dict[str, Any], published: int) -> None:
    six = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
    assert num_lora_parameters(Shape.from_config(config), 8, six) == published


TINY = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
        ("llama", {"head_dim": 16}),
        ("mistral", {}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("gemma", {}),
        ("gemma2", {"head_dim": 16}),
        ("gemma3_text", {"head_dim": 16}),
        ("phi3", {}),
        ("smollm3", {}),
        ("granite", {}),
        ("olmo", {}),
        ("olmo2", {}),
    ],
)
def test_parameters_equal_the_real_model(model_type: str, changes: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(model_type, **{**TINY, **changes})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = Shape.from_config(config.to_dict())
    assert shape.exact
    assert num_parameters(shape) == model.num_parameters()


@pytest.mark.parametrize(
    ("targets", "dora"), [("all-linear", False), (("q_proj", "v_proj"), False), (("down_proj",), True), (("q_proj", "lm_head"), False)]
)
def test_lora_parameters_equal_peft(targets: Any, dora: bool) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("llama", **TINY)
    with torch.device("cpu"):
        model = AutoModelForCausalLM.from_config(config)
    names = "all-linear" if targets == "all-linear" else list(targets)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=names, task_type="CAUSAL_LM", use_dora=dora))
    learning = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert num_lora_parameters(Shape.from_config(config.to_dict()), 4, targets, dora=dora) == learning


def test_the_text_part_of_a_multimodal_configuration_is_taken() -> None:
    nested = {"model_type": "gemma3", "text_config": {**TINY, "model_type": "gemma3_text"}}
    assert Shape.from_config(nested).num_layer_norms == 4


def test_an_unknown_architecture_is_taken_for_a_llama_and_marked() -> None:
    assert not Shape.from_config({**LLAMA_7B, "model_type": "nobody-knows"}).exact


def test_encoders_and_experts_are_refused_by_the_field() -> None:
    with pytest.raises(ModelError, match="experts"):
        Shape.from_config({**LLAMA_7B, "num_local_experts": 8})
    with pytest.raises(ModelError, match="num_hidden_layers"):
        Shape.from_config({**LLAMA_7B, "num_hidden_layers": None})


def test_targets_by_fused_and_full_names() -> None:
    assert resolve_targets(["model.layers.0.self_attn.qkv_proj"]) == {"q_proj", "k_proj", "v_proj"}
    assert resolve_targets("all-linear") == set(LAYER_LINEARS)
    with pytest.raises(ModelError, match="q_projj") as caught:
        resolve_targets(["q_projj"])
    assert "did you mean 'q_proj'" in str(caught.value)


def test_shapes_and_costs_never_load_torch() -> None:
    code = "import sys, campana.models.cost, campana.models.parse; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
