"""The chunked output layer computes what plain torch computes: loss and every gradient, for every kind of head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from campana.models import cost
from campana.tuning import head as head_module
from campana.tuning.head import OutputLayer


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LOGIT_BLOCK_BYTES", 20 * 37 * 4)
    monkeypatch.setattr(head_module, "CHUNK_ELEMENTS", 16 * 37)
    monkeypatch.setattr(head_module, "SLICE_ELEMENTS", 20 * 8)


def plain(head: OutputLayer, hidden: torch.Tensor, targets: torch.Tensor, weight: float) -> torch.Tensor:
    logits = head.layer(hidden) * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return nn.functional.cross_entropy(logits, targets, reduction="sum") * weight


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 50),
    bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.125, 3.0]),
    softcap=st.sampled_from([None, 2.0]),
    seed=st.integers(0, 1000),
)
def test_a_linear_head_equals_plain_torch(count: int, bias: bool, scale: float, softcap: float | None, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(8, 37, bias=bias)
    hidden = torch.randn(count, 8).requires_grad_()
    targets = torch.randint(0, 37, (count,))
    head = OutputLayer(layer, scale, softcap)
    learning = [hidden, *layer.parameters()]
    loss, expected = head.loss(hidden, targets, 0.3), plain(head, hidden, targets, 0.3)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(torch.autograd.grad(loss * 2, learning), torch.autograd.grad(expected * 2, learning), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 4.0])
def test_gradients_in_float64_are_the_differences_of_the_loss(softcap: float | None) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 37).double()
    hidden = torch.randn(50, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 37, (50,))
    head = OutputLayer(layer, 0.5, softcap)
    learning = [hidden, layer.weight, layer.bias]
    grads = torch.autograd.grad(head.loss(hidden, targets, 0.7), learning)
    for tensor, grad in zip(learning, grads, strict=True):
        direction, step = torch.randn_like(tensor), 1e-6
        with torch.no_grad():
            tensor.add_(direction, alpha=step)
            above = head.loss(hidden, targets, 0.7)
            tensor.add_(direction, alpha=-2 * step)
            below = head.loss(hidden, targets, 0.7)
            tensor.add_(direction, alpha=step)
        assert ((above - below) / (2 * step)).item() == pytest.approx((grad * direction).sum().item(), rel=1e-6, abs=1e-7)


def test_a_second_backward_pass_is_refused() -> None:
    loss = OutputLayer(nn.Linear(8, 37)).loss(torch.randn(3, 8), torch.tensor([1, 2, 3]), 1.0)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="handed out already"):
        loss.backward()


def adapted(**options: Any) -> Any:
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("lm_head", nn.Linear(8, 37, bias=False))
    return inject_adapter_in_model(LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False, **options), model).lm_head


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
def test_an_adapter_on_the_head(options: dict[str, bool]) -> None:
    layer = adapted(**options)
    hidden = torch.randn(40, 8).requires_grad_()
    targets = torch.randint(0, 37, (40,))
    head = OutputLayer(layer, 0.5, 3.0)
    learning = [hidden, *(p for p in layer.parameters() if p.requires_grad)]
    assert len(learning) > 2
    loss, expected = head.loss(hidden, targets, 0.1), plain(head, hidden, targets, 0.1)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(torch.autograd.grad(loss, learning), torch.autograd.grad(expected, learning), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"lora_dropout": 0.5}, {"use_dora": True}])
def test_an_adapter_on_the_head_of_a_narrower_decoder(options: dict[str, Any]) -> None:
    layer = adapted(**options).eval()
    hidden = torch.randn(40, 8).bfloat16().requires_grad_()
    targets = torch.randint(0, 37, (40,))
    loss, expected = (OutputLayer(layer).loss(given, targets, 0.1) for given in (hidden, hidden.float()))
    assert loss.item() == expected.item()
    loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


def test_a_tied_head_adds_to_the_gradient_of_the_embedding() -> None:
    torch.manual_seed(0)
    embedding, layer = nn.Embedding(37, 8), nn.Linear(8, 37, bias=False)
    layer.weight = embedding.weight
    ids, targets = torch.randint(0, 37, (30,)), torch.randint(0, 37, (30,))
    OutputLayer(layer).loss(embedding(ids), targets, 1.0).backward()
    found = embedding.weight.grad
    embedding.weight.grad = None
    nn.functional.cross_entropy(layer(embedding(ids)), targets, reduction="sum").backward()
    torch.testing.assert_close(found, embedding.weight.grad, rtol=1e-5, atol=1e-6)


def test_a_frozen_head_hands_out_no_weight_gradient_and_no_graph_is_kept_without_need() -> None:
    layer = nn.Linear(8, 37).requires_grad_(False)
    hidden = torch.randn(4, 8, requires_grad=True)
    OutputLayer(layer).loss(hidden, torch.tensor([1, 2, 3, 4]), 1.0).backward()
    assert hidden.grad is not None
    assert layer.weight.grad is None
    with torch.no_grad():
        assert not OutputLayer(layer).loss(hidden, torch.tensor([1, 2, 3, 4]), 1.0).requires_grad


@pytest.mark.parametrize("kind", [nn.Linear, type("OtherLinear", (nn.Linear,), {})])
def test_without_gradients_none_is_made(kind: type[nn.Linear]) -> None:
    """Validation: the logits are all that is computed, and the loss is the same."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    layer = kind(8, 37)
    hidden, targets = torch.randn(50, 8, requires_grad=True), torch.randint(0, 37, (50,))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        loss = OutputLayer(layer).loss(hidden, targets, 1.0)
    assert counter.get_total_flops() == 2 * 50 * 8 * 37
    torch.testing.assert_close(loss, OutputLayer(layer).loss(hidden, targets, 1.0))


def test_no_supervised_position_is_a_zero_that_can_be_differentiated() -> None:
    hidden = torch.randn(0, 8, requires_grad=True)
    loss = OutputLayer(nn.Linear(8, 37)).loss(hidden, torch.zeros(0, dtype=torch.int64), 1.0)
    loss.backward()
    assert loss.item() == 0.0


def test_no_matrix_of_tokens_by_vocabulary_exists() -> None:
    """The largest tensor of the loss is a block of logits, not all of them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        rows = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.ndim == 2 and out.shape[1] == 37:
                self.rows = max(self.rows, out.shape[0])
            return out

    hidden = torch.randn(400, 8, requires_grad=True)
    with Largest() as largest:
        OutputLayer(nn.Linear(8, 37)).loss(hidden, torch.randint(0, 37, (400,)), 1.0).backward()
    assert largest.rows == 40  # twice 20, as the weight learns


def test_bf16_products_keep_the_loss_near_fp32() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 37, bias=False)
    hidden, targets = torch.randn(50, 64, requires_grad=True), torch.randint(0, 37, (50,))
    exact = OutputLayer(layer).loss(hidden, targets, 1.0)
    rounded = OutputLayer(layer, precision=torch.bfloat16).loss(hidden, targets, 1.0)
    assert rounded.dtype == torch.float32
    assert rounded.item() != exact.item()
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-2)
    (found,), (wanted,) = torch.autograd.grad(rounded, [layer.weight]), torch.autograd.grad(exact, [layer.weight])
    assert found.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(found.flatten(), wanted.flatten(), 0) > 0.999


@pytest.mark.parametrize("count", [30, 200])  # one block, several
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_bf16_gradients_of_packs_add_up(count: int, factor: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 37, bias=False)
    head = OutputLayer(layer, scale=0.5, precision=torch.bfloat16)
    packs = [(torch.randn(count, 8), torch.randint(0, 37, (count,))) for _ in range(3)]
    for hidden, targets in packs:
        (head.loss(hidden, targets, 0.3) * factor).backward()
    assert layer.weight.grad is not None
    found, layer.weight.grad = layer.weight.grad, None
    assert found.dtype == torch.float32
    for hidden, targets in packs:
        (plain(head, hidden, targets, 0.3) * factor).backward()
    torch.testing.assert_close(found, layer.weight.grad, rtol=0.02, atol=0.02 * layer.weight.grad.abs().max().item())


def test_a_packs_gradient_of_one_block_takes_no_matrix_beside_the_sum() -> None:
    """Nor is there a narrow copy of the weight."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Whole(TorchDispatchMode):
        made = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            held = isinstance(out, torch.Tensor) and out.shape in ((37, 8), (8, 37))
            self.made += held and all(out.untyped_storage().data_ptr() != a.untyped_storage().data_ptr() for a in known)
            return out

    layer = nn.Linear(8, 37, bias=False)
    head = OutputLayer(layer, precision=torch.bfloat16)
    hidden, targets = torch.randn(30, 8), torch.randint(0, 37, (30,))
    head.loss(hidden, targets, 1.0).backward()
    assert layer.weight.grad is not None
    known = [layer.weight, layer.weight.grad]
    before = layer.weight.grad.clone()
    with Whole() as whole:
        head.loss(hidden, targets, 1.0).backward()
    assert whole.made == 0
    assert layer.weight.grad is known[1]
    torch.testing.assert_close(layer.weight.grad, 2 * before)
