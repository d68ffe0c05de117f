"""The proof by which `benchmarks/tuning.py` lets a packing trainer be a rival: it must see rows that see each other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

TOOLS = Path(__file__).parents[2] / "benchmarks" / "tuning_systems"


@pytest.fixture(scope="module")
def watch() -> Any:
    spec = importlib.util.spec_from_file_location("campana_benchmark_watch", TOOLS / "watch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("apart", [True, False], ids=["each row alone", "rows that see each other"])
def test_rows_that_see_each_other_are_found(watch: Any, apart: bool) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config).eval()
    model.set_attn_implementation("eager")
    lengths = (7, 9)
    total = sum(lengths)
    ids = torch.randint(0, 50, (1, total))
    row_T = torch.repeat_interleave(torch.arange(2), torch.tensor(lengths))
    allowed = torch.ones(total, total, dtype=torch.bool).tril()
    if apart:
        allowed &= row_T[:, None] == row_T[None, :]
    mask = torch.zeros(1, 1, total, total).masked_fill(~allowed, torch.finfo(torch.float32).min)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    found = watch.contamination(model, {"input_ids": ids, "labels": ids.clone(), "attention_mask": mask, "position_ids": positions})
    assert (found["rows"], found["longest_row"]) == (2, 9)
    assert (found["worst_relative_difference"] < 1e-5) == apart
    assert apart or found["worst_relative_difference"] > 1e-3
