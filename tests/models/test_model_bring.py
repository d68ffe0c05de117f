"""Bringing models in: folders and GGUF files become one form; what is unsafe or broken is refused with what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from campana.errors import ModelError
from campana.models.bring import bring_in
from campana.models.load import load_model, load_tokenizer
from campana.models.sources.hub import Hub
from campana.models.sources.local import Local

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def silent(done: float, total: float, unit: str, **figures: float | str) -> None:
    """A progress that nobody sees."""


def bring(path: Path, out_dir: Path) -> dict[str, Any]:
    out_dir.mkdir()
    bring_in(Local(), path, out_dir, silent, out_dir.parent / "cache")
    return json.loads((out_dir / "model.json").read_text())


# --- folders ------------------------------------------------------------------------------------------------------------------------


def test_a_folder_is_copied_proved_and_described(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    about = bring(save_tiny(), tmp_path / "out")
    model = load_model(tmp_path / "out")
    assert about["schema"] == "campana.model/1"
    assert about["source"] == {"kind": "local", "version": 1}
    assert about["num_parameters"] == model.num_parameters()
    assert about["shape"]["exact"]
    assert (about["architecture"], about["vocab_size"], about["context_length"]) == ("LlamaForCausalLM", 320, 128)
    assert (about["eos_ids"], about["pad_id"], about["turn_end_id"], about["dtype"]) == ([2], 0, 2, "float32")
    assert about["chat_template"]
    assert about["lossy"] == []
    assert str(tmp_path) not in (tmp_path / "out" / "model.json").read_text()
    original = load_model(tmp_path / "tiny")
    ids = torch.arange(10)[None]
    assert torch.equal(model(ids).logits, original(ids).logits)


def test_a_copied_folder_is_its_own(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_tiny()
    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    bring(folder, tmp_path / "out")
    copied = tmp_path / "out" / "model.safetensors"
    assert not copied.is_symlink()
    assert copied.stat().st_nlink == 1, "a person's file may be edited in place, so it is not shared"


def test_a_snapshot_of_the_hubs_cache_is_linked_not_copied(
    save_tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    commit = "93efa2f097d58c2a74874c7e644dbc9b0cee75a2"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "blobs").mkdir(parents=True)
    (repository / "snapshots" / commit).mkdir(parents=True)
    for path in save_tiny().iterdir():
        path.rename(repository / "blobs" / path.name)
        (repository / "snapshots" / commit / path.name).symlink_to(repository / "blobs" / path.name)
    (repository / "snapshots" / commit / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "out").mkdir()
    bring_in(Hub(repository="org/name", revision=commit), None, tmp_path / "out", silent, tmp_path / "cache")
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["source"]["revision"] == commit
    assert about["licence"] == "mit"
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert (tmp_path / "out" / "model.safetensors").samefile(repository / "blobs" / "model.safetensors")


def test_shards_stay_shards(make_llama: Any, make_tokenizer: Any, tmp_path: Path) -> None:
    make_llama().save_pretrained(tmp_path / "m", max_shard_size="40KB")
    make_tokenizer().save_pretrained(tmp_path / "m")
    about = bring(tmp_path / "m", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert about["num_parameters"] == load_model(tmp_path / "out").num_parameters()
    next((tmp_path / "m").glob("model-*.safetensors")).unlink()
    with pytest.raises(ModelError, match="weights are missing: model-"):
        bring(tmp_path / "m", tmp_path / "out2")


def test_the_turns_end_is_an_end_token_even_where_the_configuration_forgets_it(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_tiny(eos_token_id=0)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["eos_token"] = "<|endoftext|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    about = bring(folder, tmp_path / "out")
    assert about["turn_end_id"] == 2
    assert about["eos_ids"] == [0, 2]
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [0, 2]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapter_only(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')


def not_finite(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def one_tensor_less(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (pickle_only, "pickled"),
        (adapter_only, "adapter, not a model"),
        (lambda f: edit(f / "config.json", auto_map={"AutoModel": "modeling.X"}), "auto_map"),
        (lambda f: edit(f / "tokenizer_config.json", auto_map={"AutoTokenizer": "t.X"}), "auto_map"),
        (lambda f: edit(f / "config.json", quantization_config={"quant_method": "awq"}), "quantised \\(awq\\)"),
        (not_finite, "not finite"),
        (one_tensor_less, "no weights for model.layers.1.mlp.up_proj"),
        (cut_short, "damaged"),
        (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: edit(f / "config.json", vocab_size=200), "tokens, the model only 200"),
        (lambda f: (f / "chat_template.jinja").write_text("{{ nothing"), "chat template does not work"),
        (lambda f: (f / "chat_template.jinja").write_text("silence"), "does not write the assistant's answer"),
    ],
)
def test_what_is_unsafe_or_broken_is_refused(
    save_tiny: Callable[..., Path], tmp_path: Path, harm: Callable[[Path], object], message: str
) -> None:
    folder = save_tiny()
    harm(folder)
    with pytest.raises(ModelError, match=message):
        bring(folder, tmp_path / "out")


def test_pickles_beside_safetensors_are_left_behind(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    folder = save_tiny()
    (folder / "pytorch_model.bin").write_bytes(b"evil")
    (folder / "modeling_x.py").write_text("raise SystemExit")
    bring(folder, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.bin"))
    assert not list((tmp_path / "out").glob("*.py"))


# --- GGUF ---------------------------------------------------------------------------------------------------------------------------


def write_gguf(path: Path, model: Any, tokenizer: Any, *, pre: str = "smollm", drop: str = "", scaling: str = "") -> None:
    """Write the model as llama.cpp does: float32 tensors, rotary rows interleaved, byte-level BPE."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if scaling == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)
    if scaling == "factors":  # as llama.cpp stores Llama 3.1's
        writer.add_tensor("rope_freqs.weight", np.ones(config.head_dim // 2, np.float32))
    writer.add_vocab_size(config.vocab_size)
    writer.add_license("apache-2.0")
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(backend["model"]["vocab"], key=backend["model"]["vocab"].get)
    tokens += [f"unused{n}" for n in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in backend["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output"}
    names |= {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    names |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for name, tensor in model.state_dict().items():
        target = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}.get(name)
        if name == "lm_head.weight" or name == drop:
            continue
        if target is None:
            _, _, layer, rest = name.split(".", 3)
            target = f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight"
        values = tensor.numpy()
        if "attn_q" in target or "attn_k" in target:
            heads = config.num_attention_heads if "attn_q" in target else config.num_key_value_heads
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(target, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_gives_back_the_model_that_it_was_made_from(make_llama: Any, make_tokenizer: Any, tmp_path: Path) -> None:
    import torch

    model = make_llama()
    write_gguf(tmp_path / "tiny.gguf", model, make_tokenizer())
    about = bring(tmp_path / "tiny.gguf", tmp_path / "out")
    brought = load_model(tmp_path / "out")
    ids = torch.arange(3, 40)[None]
    torch.testing.assert_close(brought(ids).logits, model(ids).logits, rtol=0, atol=1e-6)
    assert about["licence"] == "apache-2.0"
    assert (about["eos_ids"], about["pad_id"], about["turn_end_id"]) == ([2], 0, 2)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "out").glob("*.json"))


def test_a_gguf_tokenizer_splits_digits_as_its_family_does(make_llama: Any, make_tokenizer: Any, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["model"]["vocab"]["12"] = 300
    backend["model"]["merges"].append(["1", "2"])  # one that text split digit by digit never uses
    tokenizer.backend_tokenizer.model = type(tokenizer.backend_tokenizer).from_str(json.dumps(backend)).model
    assert "12" in tokenizer.tokenize("a12")
    write_gguf(tmp_path / "tiny.gguf", make_llama(), tokenizer, pre="smollm")
    bring(tmp_path / "tiny.gguf", tmp_path / "out")
    read = load_tokenizer(tmp_path / "out")
    assert "12" not in read.tokenize("a12")
    assert read.decode(read.encode("x 12 <|im_end|> 你好")) == "x 12 <|im_end|> 你好"
    assert read.encode("<|im_end|>") == [2]


def test_a_gguf_file_that_cannot_be_exact_is_refused(make_llama: Any, make_tokenizer: Any, tmp_path: Path) -> None:
    model, tokenizer = make_llama(), make_tokenizer()
    write_gguf(tmp_path / "a.gguf", model, tokenizer, pre="nobody-knows")
    with pytest.raises(ModelError, match="splits text in a way that is not known here"):
        bring(tmp_path / "a.gguf", tmp_path / "out1")
    write_gguf(tmp_path / "b.gguf", model, tokenizer, drop="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ModelError, match="have no place"):
        bring(tmp_path / "b.gguf", tmp_path / "out2")
    write_gguf(tmp_path / "c.gguf", model, tokenizer)
    (tmp_path / "c.gguf").write_bytes((tmp_path / "c.gguf").read_bytes()[:300])
    with pytest.raises(ModelError, match="GGUF file that can be read"):
        bring(tmp_path / "c.gguf", tmp_path / "out3")
    for scaling in ("linear", "factors"):
        write_gguf(tmp_path / f"{scaling}.gguf", model, tokenizer, scaling=scaling)
        with pytest.raises(ModelError, match="scales its rotary positions, which is lost"):
            bring(tmp_path / f"{scaling}.gguf", tmp_path / f"out_{scaling}")
    (tmp_path / "d.gguf").write_bytes(b"other")
    with pytest.raises(ModelError, match="not a GGUF file"):
        bring(tmp_path / "d.gguf", tmp_path / "out4")


def test_a_folder_with_several_gguf_files_asks_which(make_llama: Any, make_tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    write_gguf(tmp_path / "m" / "a.gguf", make_llama(), make_tokenizer())
    assert bring(tmp_path / "m", tmp_path / "out")["vocab_size"] == 320
    shutil.copyfile(tmp_path / "m" / "a.gguf", tmp_path / "m" / "b.gguf")
    with pytest.raises(ModelError, match=r"2 \.gguf files"):
        bring(tmp_path / "m", tmp_path / "out2")


def test_nothing_is_printed(make_llama: Any, make_tokenizer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "tiny.gguf", make_llama(), make_tokenizer())
    capfd.readouterr()
    bring(tmp_path / "tiny.gguf", tmp_path / "out")
    load_model(tmp_path / "out")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
