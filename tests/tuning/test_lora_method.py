"""LoRA through PEFT: what learns, how many, from which seed, and that a saved adapter is what was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from campana.errors import StudyError
from campana.models.quiet import quiet
from campana.tuning.job import tune
from campana.tuning.methods.lora import Lora
from campana.tuning.optimizer import learning_parameters

SIX = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize(
    ("hidden", "intermediate", "layers", "heads", "expected"),
    [(4096, 11008, 32, 32, 17_891_328), (5120, 13824, 40, 40, 28_016_640)],
    ids=["LLaMA-7B", "LLaMA-13B"],
)
def test_trainable_parameters_of_the_papers(hidden: int, intermediate: int, layers: int, heads: int, expected: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers, num_attention_heads=heads)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
        adapted = Lora(rank=8, targets=SIX).prepare(model, seed=0)
    assert sum(p.numel() for p in learning_parameters(adapted).values()) == expected


def load(model_dir: Path) -> Any:
    from campana.models.load import load_model

    return load_model(model_dir)


def test_all_linear_leaves_the_head_and_freezes_the_rest(model_dir: Path) -> None:
    adapted = Lora(rank=4).prepare(load(model_dir), seed=0)
    learning = learning_parameters(adapted)
    assert len(learning) == 2 * 7 * 2
    assert all(".lora_A." in name or ".lora_B." in name for name in learning)
    assert not any("lm_head" in name or "embed" in name for name in learning)
    assert all(p.dtype == torch.float32 for p in learning.values())


def test_the_seed_alone_draws_the_factors(model_dir: Path) -> None:
    def factors(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        before = torch.random.get_rng_state()
        learning = learning_parameters(Lora(rank=4).prepare(load(model_dir), seed))
        assert torch.equal(torch.random.get_rng_state(), before), "the global generator was touched"
        return {name: p.detach() for name, p in learning.items()}

    first, again, other = factors(1, noise=0), factors(1, noise=99), factors(2, noise=0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name, value in first.items():
        if ".lora_B." in name:
            assert not value.any()
            continue
        bound = value.shape[1] ** -0.5
        assert value.abs().max() <= bound
        assert value.std() == pytest.approx(bound / 3**0.5, rel=0.3)
        assert not torch.equal(value, other[name])


def test_an_unknown_target_lists_the_known_ones(model_dir: Path) -> None:
    with pytest.raises(StudyError, match=r"no linear layers named query[\s\S]*q_proj"):
        Lora(targets=("query",)).prepare(load(model_dir), seed=0)


@pytest.mark.parametrize(
    "method",
    [
        Lora(rank=4),
        Lora(rank=4, targets=("q_proj", "down_proj"), rslora=True),
        Lora(rank=4, dora=True),
        Lora(rank=4, targets=("lm_head", "v_proj")),
    ],
    ids=["all-linear", "rslora on two", "dora", "on the head"],
)
def test_a_saved_adapter_reloads_and_merges_to_the_same_logits(
    method: Lora, make_job: Callable[..., Any], progress: Any, model_dir: Path, untied_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    from campana.tuning import job as job_module

    trained: list[Any] = []
    export = job_module._export
    monkeypatch.setattr(job_module, "_export", lambda job, model: (trained.append(model), export(job, model)))
    if "lm_head" in method.targets:
        model_dir = untied_dir
    job = make_job(method=method, epochs=1.0, learning_rate=1e-2, model_dir=model_dir)
    tune(job, progress)
    model = trained[0]
    factors = [p for name, p in learning_parameters(model).items() if ".lora_B." in name]
    assert factors
    assert all(p.abs().max() > 0 for p in factors), "an adapter did not learn"
    ids = torch.arange(4, 40)[None]
    model.get_base_model().set_attn_implementation("sdpa")
    with torch.no_grad(), quiet():
        live = model(input_ids=ids).logits
        reloaded = PeftModel.from_pretrained(load(model_dir), job.out_dir / "model")
        beside = reloaded(input_ids=ids).logits
        merged = reloaded.merge_and_unload()(input_ids=ids).logits
        base = load(model_dir)(input_ids=ids).logits
    torch.testing.assert_close(beside, live, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged, live, rtol=1e-4, atol=1e-4)
    assert (live - base).abs().max() > 1e-2
    assert not (job.out_dir / "model" / "README.md").exists()
    assert str(model_dir) not in (job.out_dir / "model" / "adapter_config.json").read_text()


def test_no_graph_below_the_first_adapter(model_dir: Path) -> None:
    """With adapters on the last layer alone, the layers below it keep nothing for a backward pass."""
    from campana.tuning.forward import Network
    from campana.tuning.packs import packs_of

    adapted = Lora(rank=4, targets=("layers.1.mlp.down_proj",)).prepare(load(model_dir), seed=0)
    network = Network.of(adapted, "fp32")
    seen: list[bool] = []
    decoder: Any = network.decoder
    decoder.layers[0].register_forward_hook(lambda module, args, out: seen.append(out.requires_grad))
    decoder.layers[1].register_forward_hook(lambda module, args, out: seen.append(out.requires_grad))
    import numpy as np

    (pack,) = packs_of([(np.arange(4, 20, dtype=np.int32), np.ones(16, dtype=bool))], 100)
    network.loss(pack, 1.0).backward()
    assert seen == [False, True]
    assert all(p.grad is None for p in adapted.parameters() if not p.requires_grad)


def test_an_adapter_on_tied_layers_is_refused(model_dir: Path) -> None:
    """PEFT trains it, and merging it then changes the other layer too: the merged model would not be the one that was trained."""
    with pytest.raises(StudyError, match="tied"):
        Lora(rank=4, targets=("lm_head",)).prepare(load(model_dir), seed=0)


def test_an_adapter_on_the_output_layer_is_stored_without_the_layer(untied_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    method = Lora(rank=4, targets=("lm_head",))
    method.export(method.prepare(load(untied_dir), seed=0), tmp_path)
    assert {name.rsplit(".", 2)[-2] for name in load_file(tmp_path / "adapter_model.safetensors")} == {"lora_A", "lora_B"}


def test_what_peft_refuses_names_the_field() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(**sizes, num_key_value_heads=2, num_local_experts=2))
    with pytest.raises(StudyError, match="PEFT puts no such adapters into MixtralForCausalLM") as caught:
        Lora(rank=4, dora=True).prepare(model, seed=0)
    assert caught.value.where == "method"
