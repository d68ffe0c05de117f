"""Loading: whole models and adapters, merged or beside the weights; empty and foreign adapters are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from campana.errors import ModelError
from campana.models.load import load_model, load_tokenizer, read_config
from campana.models.quiet import quiet


def tune_adapter(model_dir: Path, tuned_dir: Path, *, scale: float = 0.3, seed: int = 1, **changes: Any) -> Any:
    """Save an adapter with random factors as a `tune` stage does; returns the adapted model, in memory."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes})
    with quiet():
        adapted: Any = get_peft_model(load_model(model_dir), config)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        adapted.save_pretrained(tuned_dir / "model")
    return adapted.eval()


def logits_of(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.arange(3, 43).reshape(2, 20)).logits


@pytest.mark.parametrize(
    "changes",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj", "v_proj"]}],
    ids=["plain", "rslora", "dora", "two"],
)
def test_a_saved_adapter_reloads_and_merges_to_the_same_logits(save_tiny: Callable[..., Path], tmp_path: Path, changes: Any) -> None:
    import torch

    base = save_tiny()
    trained = logits_of(tune_adapter(base, tmp_path / "tune", **changes))
    merged, beside = load_model(base, tmp_path / "tune"), load_model(base, tmp_path / "tune", merge=False)
    torch.testing.assert_close(logits_of(beside), trained, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_of(merged), trained, rtol=0, atol=1e-5)
    assert (logits_of(load_model(base)) - trained).abs().max() > 1e-2, "the adapter must matter for this test to mean anything"
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert not any(p.requires_grad for p in beside.parameters())


def test_a_whole_tuned_model_is_loaded_instead_of_the_base(save_tiny: Callable[..., Path], make_llama: Any, tmp_path: Path) -> None:
    import torch

    base, tuned = save_tiny(), make_llama(seed=5)
    tuned.save_pretrained(tmp_path / "tune" / "model")
    assert torch.equal(logits_of(load_model(base, tmp_path / "tune")), logits_of(tuned))


def test_precision_and_attention(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    base = save_tiny()
    tune_adapter(base, tmp_path / "tune")
    merged = load_model(base, tmp_path / "tune", precision="bf16", attention="eager")
    exact = load_model(base, tmp_path / "tune").state_dict()
    assert merged.config._attn_implementation == "eager"
    assert not merged.training
    for name, tensor in merged.state_dict().items():
        assert torch.equal(tensor, exact[name].to(torch.bfloat16)), "merged in float32, then rounded once"


def edit_tensors(tuned_dir: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    from safetensors.torch import load_file, save_file

    path = tuned_dir / "model" / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


def without(tensors: dict[str, Any], part: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {}, "holds no tensors"),
        (lambda tensors: {n: t * 0 if "lora_B" in n else t for n, t in tensors.items()}, "all 14 of its B factors are zero"),
        (lambda tensors: without(tensors, "layers.1."), "does not fit this model: it has nothing for"),
        (lambda tensors: {n.replace("layers.1.", "layers.7."): t for n, t in tensors.items()}, "does not fit this model"),
        (lambda tensors: {**tensors, "base_model.model.other.lora_A.weight": tensors[min(tensors)].clone()}, "has no place"),
    ],
    ids=["empty", "zero", "half", "renamed", "foreign"],
)
def test_an_adapter_that_would_answer_as_its_base_is_refused(
    save_tiny: Callable[..., Path], tmp_path: Path, change: Any, message: str
) -> None:
    base = save_tiny()
    tune_adapter(base, tmp_path / "tune")
    edit_tensors(tmp_path / "tune", change)
    with pytest.raises(ModelError, match=message):
        load_model(base, tmp_path / "tune")


def test_an_adapter_of_another_size_is_refused(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    tune_adapter(save_tiny("wide", hidden_size=64), tmp_path / "tune")
    with pytest.raises(ModelError, match="does not fit this model"):
        load_model(save_tiny("narrow"), tmp_path / "tune")


def test_a_pickled_adapter_and_a_trial_without_weights(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    base = save_tiny()
    tune_adapter(base, tmp_path / "tune")
    weights = tmp_path / "tune" / "model" / "adapter_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="pickled"):
        load_model(base, tmp_path / "tune")
    (tmp_path / "trial").mkdir()
    with pytest.raises(ModelError, match="kept no weights"):
        load_model(base, tmp_path / "trial")


def test_a_damaged_base_is_refused_by_name(save_tiny: Callable[..., Path]) -> None:
    base = save_tiny()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"no weights for model\.layers\.2"):
        load_model(base)
    (base / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_tokenizer(base)


def test_an_encoder_is_not_a_language_model(tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, hidden_dim=16, n_layers=1, n_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="'distilbert' model cannot be loaded as a causal language model"):
        load_model(tmp_path)


def test_the_configuration_is_read_as_it_is(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    assert read_config(save_tiny())["hidden_size"] == 32
    with pytest.raises(ModelError, match=r"no config\.json"):
        read_config(tmp_path)
