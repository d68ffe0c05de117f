"""FLOPs equal what torch counts; activations equal what autograd keeps; all costs grow with the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.models.cost import (
    activation_bytes_per_token,
    disk_bytes,
    forward_flops,
    generation_flops,
    generation_memory_bytes,
    num_trainable,
    training_flops,
    training_memory_bytes,
)
from campana.models.shape import Shape, num_parameters

# PEFT 0.21 reads a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@dataclass(frozen=True)
class Full:
    kind: str = "full"


@dataclass(frozen=True)
class Lora:
    rank: int = 4
    targets: Any = "all-linear"
    dora: bool = False
    kind: str = "lora"


def adapted(model: Any, method: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    if method.kind == "full":
        return model
    names = "all-linear" if method.targets == "all-linear" else list(method.targets)
    return get_peft_model(model, LoraConfig(r=method.rank, target_modules=names, task_type="CAUSAL_LM"))


METHODS = [
    Full(),
    Lora(),
    Lora(targets=("q_proj", "v_proj")),
    Lora(targets=("v_proj",)),
    Lora(targets=("down_proj",)),
    Lora(targets=("gate_proj", "up_proj")),
    Lora(targets=("o_proj",)),
    Lora(targets=("q_proj", "lm_head")),
    Lora(targets=("lm_head",)),
]


@pytest.mark.parametrize(("method", "tied"), [(m, False) for m in METHODS] + [(m, True) for m in METHODS[:3]], ids=str)
def test_training_flops_equal_what_torch_counts(make_llama: Callable[..., Any], method: Any, tied: bool) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = make_llama(attn_implementation="eager", num_hidden_layers=3, tie_word_embeddings=tied)
    shape = Shape.from_config(model.config.to_dict())
    model = adapted(model, method)
    ids = torch.arange(2 * 16).reshape(2, 16)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    rotary = 2 * 2 * 16 * (shape.head_dim // 2)  # the rotary table is a product in transformers; it is no work that grows with the model
    assert training_flops(shape, 32, 32, 2 * 16 * 16, method, causal=False) == pytest.approx(counter.get_total_flops(), abs=rotary)


def test_generation_flops_equal_what_torch_counts(make_llama: Callable[..., Any]) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = make_llama(attn_implementation="eager")
    shape = Shape.from_config(model.config.to_dict())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.generate(torch.arange(3, 8)[None], max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
    prompt_square = 4 * shape.query_size * shape.num_layers * (5 * 5 - 5 * 6 // 2)  # torch computes the prompt's masked half too
    rotary = 2 * (5 + 5) * (shape.head_dim // 2)
    assert generation_flops(shape, [(5, 6, 0)]) + prompt_square == pytest.approx(counter.get_total_flops(), abs=rotary)


def test_forward_is_a_third_of_full_training(make_llama: Callable[..., Any]) -> None:
    shape = Shape.from_config(make_llama().config.to_dict())
    assert 3 * forward_flops(shape, 100, 60, 5000) == training_flops(shape, 100, 60, 5000, Full())


@pytest.mark.parametrize("method", [Full(), Lora(), Lora(targets=("q_proj", "v_proj"))], ids=str)
def test_activation_bytes_are_what_autograd_keeps(make_llama: Callable[..., Any], method: Any, bytes_kept: Any) -> None:
    """Within 6%: the rotary table and the norms' scales are not in the formula."""
    import torch

    from campana.tuning.kernels import fuse

    def size(layers: int) -> int:
        model = adapted(make_llama(num_hidden_layers=layers, hidden_size=64, intermediate_size=160, num_key_value_heads=4), method)
        fuse(model, torch.float32)
        whole = model.model if method.kind == "full" else model
        return bytes_kept(model, lambda: whole(input_ids=torch.arange(64)[None]))

    one_layer = (size(4) - size(2)) / 2 / 64  # the difference leaves out the output layer and the embeddings
    shape = Shape.from_config(
        make_llama(num_hidden_layers=1, hidden_size=64, intermediate_size=160, num_key_value_heads=4).config.to_dict()
    )
    assert activation_bytes_per_token(shape, method, compiled=False) == pytest.approx(one_layer, rel=0.06)


shapes = st.builds(
    Shape,
    vocab_size=st.integers(16, 500),
    hidden_size=st.integers(4, 64),
    num_layers=st.integers(1, 6),
    num_heads=st.integers(2, 8),
    num_kv_heads=st.integers(1, 2),
    head_dim=st.integers(2, 16),
    intermediate_size=st.integers(4, 128),
    tied=st.booleans(),
)
methods = st.sampled_from([Full(), Lora(), Lora(rank=1), Lora(targets=("q_proj", "v_proj"))])


@settings(deadline=None, max_examples=60)
@given(shapes, methods, st.integers(1, 500), st.integers(0, 500), st.data())
def test_costs_grow_with_the_work(shape: Shape, method: Any, num_tokens: int, num_supervised: int, data: st.DataObject) -> None:
    squares = data.draw(st.integers(num_tokens, num_tokens * num_tokens))
    flops = training_flops(shape, num_tokens, num_supervised, squares, method)
    assert flops < training_flops(shape, num_tokens + 1, num_supervised, squares + 1, method)
    assert flops < training_flops(shape, num_tokens, num_supervised + 1, squares, method)
    assert flops < training_flops(shape, num_tokens, num_supervised, squares + 2, method)
    memory = training_memory_bytes(shape, method, num_tokens, compiled=True)
    for name in ("vocab_size", "hidden_size", "num_layers", "intermediate_size", "head_dim"):
        larger = replace(shape, **{name: getattr(shape, name) + 1})
        assert training_memory_bytes(larger, method, num_tokens, compiled=True) > memory
        assert generation_memory_bytes(larger, 4, num_tokens) > generation_memory_bytes(shape, 4, num_tokens)
        assert disk_bytes(larger) > disk_bytes(shape)
    assert training_memory_bytes(shape, method, num_tokens + 1, compiled=True) > memory


@pytest.mark.parametrize(("method", "block"), [(Full(), 1 << 28), (Lora(), 1 << 27)])
def test_logits_take_memory_up_to_a_block(make_llama: Callable[..., Any], method: Any, block: int) -> None:
    shape = replace(Shape.from_config(make_llama().config.to_dict()), vocab_size=49152)
    more = training_memory_bytes(shape, method, 40_000, compiled=True) - training_memory_bytes(shape, method, 20_000, compiled=True)
    assert more == 20_000 * activation_bytes_per_token(shape, method, compiled=True)
    few = training_memory_bytes(shape, method, 11, compiled=True) - training_memory_bytes(shape, method, 1, compiled=True)
    assert few == 10 * (activation_bytes_per_token(shape, method, compiled=True) + 4 * shape.vocab_size)
    whole = training_memory_bytes(shape, method, 40_000, compiled=True) - training_memory_bytes(shape, method, 0, compiled=True)
    product = 4 * shape.vocab_size * shape.hidden_size * isinstance(method, Full)
    assert whole == 40_000 * activation_bytes_per_token(shape, method, compiled=True) + block + product


def test_one_block_of_logits_takes_as_much_as_one_of_several_and_the_output_layers_gradient(make_llama: Callable[..., Any]) -> None:
    shape = replace(Shape.from_config(make_llama().config.to_dict()), vocab_size=49152)
    output = shape.vocab_size * shape.hidden_size
    most = ((1 << 28) + 4 * output) // (2 * shape.vocab_size)  # tokens of one block

    def beyond_activations(tokens: int) -> int:
        activations = tokens * activation_bytes_per_token(shape, Full(), precision="bf16", compiled=True)
        return training_memory_bytes(shape, Full(), tokens, precision="bf16", compiled=True) - activations

    without = beyond_activations(0)
    assert beyond_activations(most) - without == 2 * most * shape.vocab_size
    assert beyond_activations(most + 1) - without == (1 << 28) + 4 * output


@settings(deadline=None, max_examples=60)
@given(shapes, st.integers(1, 200), st.integers(1, 200))
def test_lora_costs_less_than_full_when_its_rank_is_small(shape: Shape, num_tokens: int, num_supervised: int) -> None:
    small = Lora(rank=1, targets=("q_proj",))
    assert num_trainable(shape, small) < num_trainable(shape, Full()) == num_parameters(shape)
    assert disk_bytes(shape, small) < disk_bytes(shape)
    full = training_flops(shape, num_tokens, num_supervised, num_tokens, Full())
    # rank 1 adds at most 6 products of a vector to each layer, and saves a weight gradient in each matrix
    assert training_flops(shape, num_tokens, num_supervised, num_tokens, small) < full


@settings(deadline=None, max_examples=40)
@given(shapes, st.lists(st.tuples(st.integers(10, 50), st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=5))
def test_generation_costs_add_up_over_prompts(shape: Shape, lengths: list[tuple[int, int, int]]) -> None:
    assert generation_flops(shape, lengths) == sum(generation_flops(shape, [one]) for one in lengths)
    assert generation_flops(shape, [(3, 0, 0)]) == 0
    assert generation_flops(shape, lengths, Lora()) >= generation_flops(shape, lengths)
    for prompt, new, shared in lengths:
        beginning = forward_flops(shape, shared, 0, shared * shared) if new else 0
        assert generation_flops(shape, [(prompt, new, shared)]) + beginning == generation_flops(shape, [(prompt, new, 0)])
