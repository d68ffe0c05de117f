"""Attention over a pack is attention over each sample alone, values and gradients, whatever the lengths, heads and window."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.errors import ModelError
from campana.tuning.attention import attend, supports
from campana.tuning.segments import Segments


def alone(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, window: int | None, softcap: float | None) -> torch.Tensor:
    """One sample, by the definition: (H, L, D) and (K, L, D) -> (L, H, D)."""
    repeats = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)
    scores = torch.einsum("hid,hjd->hij", q, k) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(q.shape[1])[:, None] - torch.arange(q.shape[1])[None, :]
    hidden = (distance < 0) | (distance >= (window or q.shape[1]))
    return torch.einsum("hij,hjd->ihd", torch.softmax(scores.masked_fill(hidden, -torch.inf), -1), v)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=8),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]),
    window=st.sampled_from([None, 1, 5, 100]),
    softcap=st.sampled_from([None, None, 3.0]),
    seed=st.integers(0, 10_000),
)
def test_a_pack_attends_as_its_samples_do(
    lengths: list[int], heads: tuple[int, int], window: int | None, softcap: float | None, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    q, k, v = (
        torch.randn(1, n, total, 8, generator=generator, dtype=torch.float64).requires_grad_() for n in (heads[0], heads[1], heads[1])
    )
    kwargs: dict[str, Any] = {"sliding_window": window, "softcap": softcap, "scaling": 0.3, "segments": Segments.of(lengths)}
    out, weights = attend(torch.nn.Module(), q, k, v, None, **kwargs)
    parts = [alone(*(x[0] for x in piece), 0.3, window, softcap) for piece in zip(*(x.split(lengths, 2) for x in (q, k, v)), strict=True)]
    expected = torch.cat(parts)[None]
    assert weights is None
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-11)
    direction = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    for found, wanted in zip(
        torch.autograd.grad((out * direction).sum(), (q, k, v)), torch.autograd.grad((expected * direction).sum(), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("length", "window"), [(40, None), (300, 50), (800, None)])
@pytest.mark.parametrize("by", ["torch", "compiled"])
def test_attention_in_bf16_is_as_near_to_fp32_as_its_rounding(
    length: int, window: int | None, by: str, request: pytest.FixtureRequest
) -> None:
    generator, lengths = torch.Generator().manual_seed(0), [length, 20, 800]
    exact_inputs = [torch.randn(1, heads, sum(lengths), 16, generator=generator).bfloat16().float().requires_grad_() for heads in (4, 2, 2)]
    narrow = [x.detach().bfloat16().requires_grad_() for x in exact_inputs]
    direction = torch.randn(1, sum(lengths), 4, 16, generator=generator).bfloat16()
    kwargs: dict[str, Any] = {"segments": Segments.of(lengths), "sliding_window": window}
    compiled = request.getfixturevalue("compiled").attention if by == "compiled" else None
    exactly = attend(torch.nn.Module(), *exact_inputs, None, **kwargs)[0]
    narrowly = attend(torch.nn.Module(), *narrow, None, **kwargs, compiled=compiled)[0]
    assert narrowly.dtype == torch.bfloat16
    assert type(narrowly.grad_fn.next_functions[0][0]).__name__.startswith("Compiled" if compiled else "Segment")
    exact = torch.autograd.grad(exactly, exact_inputs, direction.float())
    found = torch.autograd.grad(narrowly, narrow, direction)
    for near, far in zip((narrowly.detach(), *found), (exactly.detach(), *exact), strict=True):
        assert float((near.float() - far).norm() / far.norm()) < (0.004 if compiled else 0.01)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_groups_hold_every_token_once(lengths: list[int]) -> None:
    segments = Segments.of(lengths)
    tokens = torch.cat([g.tokens for g in segments.groups])
    assert sorted(tokens.tolist()) == list(range(sum(lengths)))
    for group in segments.groups:
        cells = torch.arange(group.gather.numel()) if group.cells is None else group.cells
        assert torch.equal(group.gather[cells], group.tokens)
    assert segments.boundaries.tolist()[-1] == sum(lengths)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({}, "keyword arguments"),
        ({"segments": Segments.of([4]), "dropout": 0.1}, "dropout"),
        ({"segments": Segments.of([4]), "s_aux": torch.zeros(1)}, "s_aux"),
        ({"segments": Segments.of([4]), "is_causal": False}, "no causality"),
        ({"segments": Segments.of([5])}, "not the pack of 5 tokens"),
    ],
)
def test_what_packs_cannot_compute_is_refused(kwargs: dict[str, Any], said: str) -> None:
    q = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ModelError, match=said):
        attend(torch.nn.Module(), q, q, q, None, **kwargs)


def test_a_sliding_layer_must_say_its_window() -> None:
    module = torch.nn.Module()
    module.config = SimpleNamespace(layer_types=["sliding_attention"])  # type: ignore[assignment]
    module.layer_idx = 0  # type: ignore[assignment]
    q = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ModelError, match="does not say its window"):
        attend(module, q, q, q, None, segments=Segments.of([4]))


def test_unknown_layer_types_are_not_packed() -> None:
    def config(kinds: list[str]) -> Any:
        made = SimpleNamespace(layer_types=kinds)
        made.get_text_config = lambda: made
        return made

    assert supports(config(["full_attention", "sliding_attention"]))
    assert not supports(config(["full_attention", "linear_attention"]))
    assert not supports(config(["chunked_attention"]))
