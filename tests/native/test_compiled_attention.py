"""The compiled attention is attention by the definition, to within rounding, and depends on nothing but its segment."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from campana.native.attention import Attention
from campana.native.compiled import Compiled

QKV = tuple[Tensor, Tensor, Tensor]


def inputs(lengths: list[int], heads: int, kv_heads: int, size: int, seed: int, kind: torch.dtype) -> tuple[QKV, Tensor, Tensor]:
    """Queries, keys, values; a direction; bounds."""
    generator, total = torch.Generator().manual_seed(seed), sum(lengths)
    q, k, v, direction = (torch.randn(total, n, size, generator=generator).to(kind) for n in (heads, kv_heads, kv_heads, heads))
    return (q, k, v), direction, torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)


ROUNDING = {torch.bfloat16: 0.004, torch.float32: 2e-6}
"""Of a result or a gradient: relative, of its norm."""
WHOLE = 0
"""In place of a window: not causal, a query sees its whole segment."""


def both(attention: Attention, qkv: QKV, direction: Tensor, bounds: Tensor, scale: float, window: int | None) -> list[Tensor]:
    """The result and the three gradients."""
    causal, window = window != WHOLE, window or None
    out, lse = attention.forward(*qkv, bounds, scale=scale, window=window, causal=causal)
    return [out, *attention.backward(direction, *qkv, out, lse, bounds, scale=scale, window=window, causal=causal)]


def defined(qkv: QKV, direction: Tensor, bounds: Tensor, scale: float, window: int | None, out: Tensor | None = None) -> list[Tensor]:
    """The same in float64, segment by segment. `out`: a result that was rounded, by which the slopes of scores are then formed."""
    q, k, v, grad = (x.double() for x in (*qkv, direction))
    group = q.shape[1] // k.shape[1]
    found: list[list[Tensor]] = []
    for first, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        rows = slice(first, stop)
        keys, values = (x[rows].repeat_interleave(group, 1) for x in (k, v))
        place = torch.arange(stop - first)
        distance = place[:, None] - place[None, :]
        hidden = torch.zeros(1) > 0 if window == WHOLE else (distance < 0) | (distance >= (window or stop))
        scores = torch.einsum("ihd,jhd->hij", q[rows], keys) * scale
        shares = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)
        result = torch.einsum("hij,jhd->ihd", shares, values)
        mean = torch.einsum("ihd,ihd->hi", grad[rows], result if out is None else out[rows].double())
        slopes = shares * (torch.einsum("ihd,jhd->hij", grad[rows], values) - mean[..., None]) * scale
        parts = (torch.einsum("hij,ihd->jhd", slopes, q[rows]), torch.einsum("hij,ihd->jhd", shares, grad[rows]))
        of_keys = [x.unflatten(1, (-1, group)).sum(2) for x in parts]
        found.append([result, torch.einsum("hij,jhd->ihd", slopes, keys), *of_keys])
    return [torch.cat(pieces) for pieces in zip(*found, strict=True)]


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.one_of(st.integers(1, 24), st.integers(60, 70), st.integers(120, 300)), min_size=1, max_size=6),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3), (4, 1)]),
    size=st.sampled_from([16, 32, 64, 80, 128, 256]),
    window=st.sampled_from([None, None, WHOLE, WHOLE, 1, 2, 5, 64, 100, 129]),
    scale=st.sampled_from([0.3, 0.05, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_it_is_attention(
    either: Compiled, lengths: list[int], heads: tuple[int, int], size: int, window: int | None, scale: float, seed: int
) -> None:
    qkv, direction, bounds = inputs(lengths, *heads, size, seed, either.dtype)
    scale *= size**-0.5 * 8
    found = both(either.attention, qkv, direction, bounds, scale, window)
    wanted = defined(qkv, direction, bounds, scale, window, out=found[0])
    for name, near, far in zip(("out", "grad_q", "grad_k", "grad_v"), found, wanted, strict=True):
        most = 1.5 * ROUNDING[either.dtype] * float(far.norm()) + 1e-5 * scale * float(direction.norm())
        assert float((near.double() - far).norm()) < most, name


@pytest.mark.parametrize(("length", "window"), [(700, None), (700, WHOLE), (700, 50), (2500, None), (2500, WHOLE), (2500, 513)])
def test_long_segments_are_as_near_to_exact_as_rounding_lets_them(either: Compiled, length: int, window: int | None) -> None:
    """Long enough that a segment's gradients are summed in several tasks, up to the most that there are."""
    qkv, direction, bounds = inputs([3, length, 20], 2, 1, 64, 0, either.dtype)
    found, wanted = both(either.attention, qkv, direction, bounds, 0.125, window), defined(qkv, direction, bounds, 0.125, window)
    assert [error(*pair) < ROUNDING[either.dtype] for pair in zip(found, wanted, strict=True)] == [True] * 4


@pytest.mark.parametrize("window", [None, WHOLE])
def test_a_segment_has_the_same_bits_alone_and_in_any_pack(either: Compiled, window: int | None) -> None:
    lengths = [5, 300, 64, 1, 530]
    qkv, direction, bounds = inputs(lengths, 6, 2, 64, 1, either.dtype)
    together = both(either.attention, qkv, direction, bounds, 0.125, window)
    for first, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        q, k, v = (x[first:stop] for x in qkv)
        alone = both(either.attention, (q, k, v), direction[first:stop], bounds.new_tensor([0, stop - first]), 0.125, window)
        for whole, part in zip(together, alone, strict=True):
            assert torch.equal(whole[first:stop], part)


@settings(max_examples=40, deadline=None)
@given(
    skip=st.integers(1, 200),
    more=st.lists(st.one_of(st.integers(1, 20), st.integers(60, 200)), min_size=1, max_size=4),
    window=st.sampled_from([None, 1, 5, 64, 100, 129]),
    size=st.sampled_from([16, 64, 256]),
    seed=st.integers(0, 1000),
)
def test_queries_that_are_not_asked_move_no_bit(
    either: Compiled, skip: int, more: list[int], window: int | None, size: int, seed: int
) -> None:
    (q, k, v), _, bounds = inputs([skip + each for each in more], 4, 2, size, seed, either.dtype)
    whole, whole_lse = either.attention.forward(q, k, v, bounds, scale=0.1, window=window)
    asked = torch.cat([torch.arange(first + skip, stop) for first, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)])
    part, part_lse = either.attention.forward(q[asked], k, v, bounds, scale=0.1, window=window, skip=skip)
    assert torch.equal(part, whole[asked])
    assert torch.equal(part_lse, whole_lse[:, asked])


@pytest.mark.parametrize("window", [None, 70])
def test_a_query_has_the_same_bits_however_long_its_segment_is(either: Compiled, window: int | None) -> None:
    (q, k, v), _, bounds = inputs([333], 4, 2, 64, 3, either.dtype)
    whole, whole_lse = either.attention.forward(q, k, v, bounds, scale=0.1, window=window)
    for stop in (1, 2, 63, 64, 65, 127, 128, 129, 300):
        part, lse = either.attention.forward(q[:stop], k[:stop], v[:stop], bounds.new_tensor([0, stop]), scale=0.1, window=window)
        assert torch.equal(part, whole[:stop])
        assert torch.equal(lse, whole_lse[:, :stop])


@pytest.mark.parametrize("window", [100, WHOLE])
def test_it_has_the_same_bits_on_one_thread(either: Compiled, window: int) -> None:
    qkv, direction, bounds = inputs([700, 40, 40, 333], 4, 1, 32, 2, either.dtype)
    before = torch.get_num_threads()
    results: list[list[Tensor]] = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(both(either.attention, qkv, direction, bounds, 0.2, window))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_tensors_may_lie_in_any_way(either: Compiled) -> None:
    qkv, direction, bounds = inputs([30, 50], 4, 2, 32, 3, either.dtype)
    expected = both(either.attention, qkv, direction, bounds, 0.2, None)
    by_heads = tuple(x.transpose(0, 1).contiguous().transpose(0, 1) for x in qkv)
    by_features = tuple(x.transpose(1, 2).contiguous().transpose(1, 2) for x in qkv)
    wider = tuple(x.double() for x in qkv)
    for other in (by_heads, by_features, wider):
        q, k, v = other
        found = both(either.attention, (q, k, v), direction.transpose(0, 1).contiguous().transpose(0, 1), bounds, 0.2, None)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_number_that_is_none_is_not_hidden(either: Compiled) -> None:
    qkv, _, bounds = inputs([8, 8], 1, 1, 16, 4, either.dtype)
    qkv[1][3, 0, 0] = torch.nan
    out, _ = either.attention.forward(*qkv, bounds, scale=1.0, window=None)
    assert out[3:8].isnan().all()
    assert not out[:3].isnan().any()
    assert not out[8:].isnan().any()


@pytest.mark.parametrize(
    ("size", "kind", "taken"),
    [(64, torch.bfloat16, True), (24, torch.bfloat16, False), (24, torch.float32, True), (272, torch.bfloat16, False)],
)
def test_it_says_what_it_takes(size: int, kind: torch.dtype, taken: bool) -> None:
    x = torch.zeros(3, 1, size, dtype=kind)
    assert Attention(None, kind).takes(x, x) is taken
    other = torch.float32 if kind == torch.bfloat16 else torch.bfloat16
    assert not Attention(None, other).takes(x, x)
