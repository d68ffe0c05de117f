"""What is made again for the backward pass has the bits of what was not kept, is made once, and leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from campana.tuning import fused, kernels
from campana.tuning.again import Again, makes_again, promised
from campana.tuning.forward import Network
from campana.tuning.fused import NarrowLinear
from campana.tuning.methods.full import Full
from campana.tuning.methods.lora import Lora
from campana.tuning.packs import Pack, packs_of

if TYPE_CHECKING:
    from campana.native.compiled import Compiled


def network_of(method: Any, by: Compiled, layers: int = 2) -> tuple[Any, Network]:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "num_hidden_layers": layers, "hidden_size": 64, "intermediate_size": 96}
    torch.manual_seed(0)
    model = method.prepare(LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)), 0).eval()
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:  # zeros, as they come, let nothing through
            nn.init.normal_(parameter, std=0.1)
    kernels.fuse(model, by.dtype, by.elementwise)
    return model, Network.of(model, precision_of(by), by)


def precision_of(by: Compiled) -> Any:
    return "bf16" if by.dtype == torch.bfloat16 else "fp32"


def a_pack() -> Pack:
    generator = np.random.default_rng(0)
    rows = [(generator.integers(3, 60, size), np.arange(size) > 2) for size in (7, 30, 12)]
    (pack,) = packs_of(rows, 400)
    return pack


def gradients(method: Any, by: Compiled) -> dict[str, torch.Tensor]:
    model, network = network_of(method, by)
    network.loss(a_pack(), 0.01).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("method", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_gradients_are_those_of_what_is_kept_bit_for_bit(method: Any, either: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    made_again = gradients(method, either)
    monkeypatch.setattr(fused, "promised", lambda _: None)
    kept = gradients(method, either)
    assert made_again.keys() == kept.keys()
    assert all(torch.equal(made_again[name], kept[name]) for name in kept)


@pytest.mark.parametrize("method", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_nothing_is_kept_forward_nor_left_after_the_backward_pass(method: Any, either: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[weakref.ref[torch.Tensor]] = []
    sources: list[weakref.ref[Again]] = []

    def watched(made: torch.Tensor, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        marked = makes_again(made, make)
        results.append(weakref.ref(marked))
        sources.append(weakref.ref(marked.again))
        return marked

    _, network = network_of(method, either)
    monkeypatch.setattr(kernels, "makes_again", watched)
    loss = network.loss(a_pack(), 0.01)
    gc.collect()
    assert len(results) >= 7  # two norms and a gate of each of two layers, and the last norm
    assert not any(result() is not None for result in results)
    loss.backward()  # the graph is still there, and so is each Again: but nothing that one would be made from
    held = [source() for source in sources]
    assert sum(each is not None for each in held) >= 6
    assert all(each is None or (each._make is None and each._made is None) for each in held)


def test_it_is_made_once_for_all_that_read_it() -> None:
    calls: list[int] = []

    def make() -> torch.Tensor:
        calls.append(1)
        return torch.ones(3)

    marked = makes_again(torch.zeros(3), make)
    readers = [promised(marked) for _ in range(3)]
    found = [reader.get() for reader in readers if reader is not None]
    assert len(found) == 3
    assert len(calls) == 1
    assert all(each is found[0] for each in found)
    with pytest.raises(RuntimeError, match="gone through backward before"):
        marked.again.get()


def test_without_gradients_nothing_is_marked() -> None:
    with torch.no_grad():
        assert promised(makes_again(torch.zeros(2), lambda: torch.zeros(2))) is None
    assert promised(torch.zeros(2)) is None


@pytest.mark.parametrize("with_bias", [False, True])
def test_a_narrow_linear_layer_has_autocast_s_numbers_and_its_own_gradients(with_bias: bool) -> None:
    x, weight, bias = (torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in ((2, 5, 7), (3, 7), (3,)))
    given = bias if with_bias else None
    assert torch.autograd.gradcheck(lambda *inputs: NarrowLinear.apply(*inputs, torch.float64), (x, weight, given))
    assert torch.equal(NarrowLinear.apply(x, weight, given, torch.float64), nn.functional.linear(x, weight, given))

    layer, other = nn.Linear(64, 32, bias=with_bias), nn.Linear(64, 32, bias=with_bias)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(40, 64)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
    found = NarrowLinear.apply(x, other.weight, other.bias, torch.bfloat16)
    assert torch.equal(found, expected)
    for out in (expected, found):
        out.float().square().sum().backward()
    assert torch.equal(other.weight.grad, layer.weight.grad)
    if with_bias:
        torch.testing.assert_close(other.bias.grad, layer.bias.grad, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("method", [Full(), Lora(rank=4)], ids=["full", "lora"])
def test_what_is_kept_of_a_token_is_what_the_cost_model_counts(method: Any, either: Compiled, bytes_kept: Any) -> None:
    from campana.models.cost import activation_bytes_per_token
    from campana.models.shape import Shape

    def kept_of(layers: int) -> int:
        _, network = network_of(method, either, layers)
        return bytes_kept(network.model, lambda: network.hidden(pack))

    pack = a_pack()
    two_layers = (kept_of(4) - kept_of(2)) / sum(pack.segments.lengths)  # leaves out the first norm and the last
    shape = Shape.from_config(network_of(method, either)[0].config.to_dict())
    assert activation_bytes_per_token(shape, method, precision=precision_of(either), compiled=True) == pytest.approx(two_layers, rel=0.06)
