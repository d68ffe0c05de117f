"""The law of packing: loss and gradients of a pack equal those of its samples, one by one, through transformers' own forward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.errors import DataError, ModelError
from campana.native.compiled import Compiled
from campana.tuning import kernels, proof
from campana.tuning.forward import Network
from campana.tuning.packs import Row, packs_of

VOCAB = 97
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
NARROW_VALUES = "deepseek v3 (values narrower than queries)"
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "qwen2 (biases)": ("Qwen2", {}),
    "qwen3 (norms of queries and keys)": ("Qwen3", {}),
    "mistral (sliding window)": ("Mistral", {"sliding_window": 5}),
    "gemma2 (two soft-caps, windows)": ("Gemma2", {"sliding_window": 5, "query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0}),
    "gemma3 (windows, two rotary bases)": ("Gemma3Text", {"sliding_window": 5, "query_pre_attn_scalar": 8}),
    NARROW_VALUES: (
        "DeepseekV3",
        {
            "num_key_value_heads": 4,
            "kv_lora_rank": 8,
            "q_lora_rank": 12,
            "head_dim": 4,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 6,
            "first_k_dense_replace": 2,
        },
    ),
    "granite (scales everywhere)": ("Granite", {"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0}),
}


WIDE = {**SMALL, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
"""Sizes that the compiled operations take."""


ALONE = "lfm2 (convolutions, which look across rows of a pack)"
MODELS[ALONE] = ("Lfm2", {"layer_types": ["conv", "full_attention"]})


def make(kind: str, seed: int = 0, sizes: dict[str, Any] = SMALL, spread: float = 0.3) -> Any:
    import transformers

    name, options = MODELS[kind]
    causal = {"Gemma3Text": "Gemma3ForCausalLM"}.get(name, f"{name}ForCausalLM")
    transformers.set_seed(seed)
    config = getattr(transformers, f"{name}Config")(**{**sizes, **options})
    model = getattr(transformers, causal)._from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():  # weights of a size at which every part of the model bears on the loss
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, spread)
    return model


def rows_of(lengths: list[int], seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        supervised = rng.random(length) < 0.5
        supervised[int(rng.integers(1, length))] = True
        rows.append((rng.integers(0, VOCAB, length).astype(np.int32), supervised))
    return rows


def one_by_one(model: Any, rows: list[Row], weight: float) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for ids, supervised in rows:
        tokens = torch.from_numpy(ids.astype(np.int64))
        logits = model(input_ids=tokens[None], use_cache=False).logits[0]
        labels = torch.where(torch.from_numpy(supervised), tokens, -100)[1:]
        loss = torch.nn.functional.cross_entropy(logits[:-1], labels, ignore_index=-100, reduction="sum") * weight
        loss.backward()
        total += loss.detach()
    return total.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def packed(model: Any, rows: list[Row], weight: float, budget: int, by: Compiled | None = None) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    if by is not None:
        kernels.fuse(model, torch.float32, by.elementwise)
    network = Network.of(model, "fp32", by)
    total = 0.0
    for pack in packs_of(rows, budget, alone=not network.whole_packs):
        loss = network.loss(pack, weight)
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found: tuple[float, dict[str, torch.Tensor]], wanted: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert found[1].keys() == wanted[1].keys()
    size = max(g.abs().max().item() for g in wanted[1].values())
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5 * size, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=9),
    budget=st.sampled_from([8, 64, 400]),
    seed=st.integers(0, 1000),
)
def test_a_pack_is_its_samples(lengths: list[int], budget: int, seed: int) -> None:
    rows = rows_of(lengths, seed)
    weight = 1.0 / sum(int(s[1:].sum()) for _, s in rows)
    wanted = one_by_one(make("llama", seed % 3), rows, weight)
    assert_equal(packed(make("llama", seed % 3), rows, weight, budget), wanted)


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_law_holds_for_every_family(kind: str) -> None:
    assert Network.of(make(kind), "fp32").whole_packs is (kind != ALONE)
    rows = rows_of([7, 30, 12, 12, 3, 25], seed=1)
    wanted = one_by_one(make(kind), rows, 0.01)
    assert_equal(packed(make(kind), rows, 0.01, 60), wanted)


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_law_holds_by_compiled_operations(kind: str, compiled_fp32: Compiled) -> None:
    rows = rows_of([7, 30, 12, 12, 3, 25], seed=1)
    model, same = (make(kind, sizes=WIDE, spread=0.2) for _ in range(2))
    assert_equal(packed(same, rows, 0.01, 60, compiled_fp32), one_by_one(model, rows, 0.01))


def test_contamination_would_be_seen() -> None:
    """The law can fail: laid end to end as one sample, the rows give another loss."""
    rows = rows_of([12, 20], seed=3)
    joined = (np.concatenate([r[0] for r in rows]), np.concatenate([r[1] for r in rows]))
    apart, _ = one_by_one(make("llama"), rows, 0.01)
    mixed, _ = packed(make("llama"), [joined], 0.01, 100)
    assert abs(mixed - apart) > 1e-3


def test_rows_are_cut_after_their_last_supervised_token() -> None:
    ids = np.arange(10, dtype=np.int32)
    supervised = np.array([True, False, False, True, False, True, False, False, False, False])
    (pack,) = packs_of([(ids, supervised)], 100)
    assert pack.ids.tolist() == [0, 1, 2, 3, 4]
    assert pack.predicting.tolist() == [2, 4]
    assert pack.targets.tolist() == [3, 5]
    assert pack.num_row_tokens == 10


def test_a_row_that_teaches_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no supervised token"):
        packs_of([(np.arange(5, dtype=np.int32), np.array([True, False, False, False, False]))], 100)


def test_the_proof_refuses_a_model_that_does_something_unknown() -> None:
    model = make("llama")
    rows = proof.Sample(tuple(rows_of([20, 30], seed=5)), ())
    expected = proof.reference(model, rows)
    network = Network.of(model, "fp32")
    proof.check(network, rows, expected, "fp32")
    with pytest.raises(ModelError, match=r"loss of .* LlamaForCausalLM itself computes"):
        proof.check(network, rows, replace(expected, loss=expected.loss * 1.01), "fp32")
    turned = (expected.hidden[0], -expected.hidden[1])
    with pytest.raises(ModelError, match="hidden states of a row differ"):
        proof.check(network, rows, replace(expected, hidden=turned), "fp32")


class LongRows:
    """Prepared rows, as the proof reads them."""

    def __init__(self, *lengths: int) -> None:
        self.rows = rows_of(list(lengths), seed=5)
        self.lengths = np.array(lengths)

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        return self.rows[index]


@pytest.mark.parametrize(("name", "sound"), [("Mistral", True), ("Olmoe", False)])
def test_the_proof_goes_beyond_the_window(name: str, sound: bool) -> None:
    """OLMoE's attention is given a window that its mask does not have: transformers ignores it."""
    import transformers

    more = {"num_experts": 2, "num_experts_per_tok": 1} if name == "Olmoe" else {}
    transformers.set_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SMALL, "max_position_embeddings": 256}, sliding_window=100, **more)
    model = getattr(transformers, f"{name}ForCausalLM")._from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.3)
    short, long = LongRows(20, 101), LongRows(50, 160)
    assert proof.sample(config, short, short).beyond == ()
    rows = proof.sample(config, short, long)
    ((window, (ids, supervised)),) = rows.beyond
    assert (window, len(ids), supervised.nonzero()[0].tolist()) == (100, 132, list(range(101, 132)))
    expected = proof.reference(model, rows)
    network = Network.of(model, "fp32")
    if sound:
        proof.check(network, rows, expected, "fp32")
        return
    with pytest.raises(ModelError, match="beyond the window of 100 tokens") as caught:
        proof.check(network, rows, expected, "fp32")
    assert caught.value.hint is not None
    assert "max_length: 100" in caught.value.hint


ATTEND_IN_THEIR_OWN_WAY: dict[str, dict[str, Any]] = {
    "Bloom": {"vocab_size": VOCAB, "hidden_size": 32, "n_head": 4, "n_layer": 2},  # ALiBi
    "Falcon": {"vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2},  # not by transformers' interface
    "StableLm": {name: value for name, value in SMALL.items() if name != "head_dim"},  # keyword arguments do not reach its attention
    "Olmoe": {**SMALL, "num_experts": 2, "num_experts_per_tok": 1, "sliding_window": 100},
}


@pytest.mark.parametrize("name", list(ATTEND_IN_THEIR_OWN_WAY))
def test_what_cannot_be_packed_is_run_row_by_row(name: str) -> None:
    import transformers

    transformers.set_seed(0)
    config = getattr(transformers, f"{name}Config")(**ATTEND_IN_THEIR_OWN_WAY[name])
    model = getattr(transformers, f"{name}ForCausalLM")._from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.3)
    data = LongRows(30, 7, 120)
    wanted = one_by_one(model, data.rows, 0.01)
    sample = proof.sample(config, data, data)
    expected = proof.reference(model, sample)
    network = proof.proven(Network.of(model, "fp32"), sample, expected, "fp32")
    assert not network.whole_packs
    model.zero_grad()
    total = 0.0
    for pack in packs_of(data.rows, 200, alone=True):
        loss = network.loss(pack, 0.01)
        loss.backward()
        total += loss.item()
    assert_equal((total, {each: p.grad for each, p in model.named_parameters() if p.grad is not None}), wanted)


def test_bf16_computes_in_bf16_and_learns_in_fp32() -> None:
    rows = rows_of([7, 30, 12], seed=1)
    wanted, gradients = one_by_one(make("llama"), rows, 0.02)
    model = make("llama")
    network = Network.of(model, "bf16")
    loss = sum(network.loss(pack, 0.02) for pack in packs_of(rows, 60))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert loss.item() != wanted
    assert loss.item() == pytest.approx(wanted, rel=2e-2)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(parameter.grad.flatten(), gradients[name].flatten(), 0) > 0.98, name


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind not in (ALONE, NARROW_VALUES)])
def test_compiled_operations_are_as_near_to_exact_as_torchs(kind: str, either: Compiled) -> None:
    precision, most = ("bf16", 1.1) if either.dtype == torch.bfloat16 else ("fp32", 1.5)
    rows = rows_of([7, 30, 12, 12, 3, 25], seed=1)
    wanted, exact = one_by_one(make(kind, sizes=WIDE).double(), rows, 0.01)
    distances: list[float] = []
    for by in (None, either):
        model = make(kind, sizes=WIDE)
        kernels.fuse(model, either.dtype, by and by.elementwise)
        network = Network.of(model, precision, by)
        (pack,) = packs_of(rows, 400)
        loss = network.loss(pack, 0.01)
        loss.backward()
        assert loss.item() == pytest.approx(wanted, rel=2e-2)
        nodes = nodes_of(loss)
        for node in ("CompiledAttentionBackward", "CompiledNormBackward", "CompiledGateBackward", "CompiledRotaryBackward"):
            absent = by is None or (node, kind) in NOT_COMPILED
            assert (node in nodes) is not absent, node
        found = torch.cat([p.grad.flatten() for _, p in sorted(model.named_parameters()) if p.grad is not None])
        far = torch.cat([exact[name].flatten() for name, _ in sorted(model.named_parameters()) if name in exact])
        distances.append(float((found - far).norm() / far.norm()))
    assert distances[1] < most * distances[0]


NOT_COMPILED = {("CompiledAttentionBackward", "gemma2 (two soft-caps, windows)")}


def nodes_of(loss: torch.Tensor) -> set[str]:
    """The names of what autograd will go through."""
    found: dict[Any, str] = {}
    waiting: list[Any] = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found[node] = type(node).__name__
            waiting += [each for each, _ in node.next_functions]
    return set(found.values())
