"""One new token of each answer attends by the definition, over its own keys alone, and its key and value are kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from campana.native.compiled import Compiled

Bucket = tuple[Tensor, Tensor, int]


def shelf(lengths: list[list[int]], kv_heads: int, size: int, seed: int) -> tuple[list[Bucket], Tensor]:
    """Buckets with slots to spare, whose unused places hold what would show."""
    generator = torch.Generator().manual_seed(seed)
    buckets: list[Bucket] = []
    for each in lengths:
        shape = (len(each) + 2, kv_heads, max(each) + 5, size)
        keys, values = (torch.randn(shape, generator=generator).bfloat16() for _ in range(2))
        for slot, length in enumerate(each):
            keys[slot, :, length:] = 1e4
            values[slot, :, length:] = torch.nan
        buckets.append((keys, values, len(each)))
    return buckets, torch.tensor([length for each in lengths for length in each])


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(0, 100), min_size=1, max_size=5), min_size=1, max_size=4),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (4, 1), (12, 2)]),
    size=st.sampled_from([32, 64, 96, 256]),
    window=st.sampled_from([None, 1, 16, 33]),
    seed=st.integers(0, 1000),
)
def test_it_is_attention(
    compiled: Compiled, lengths: list[list[int]], heads: tuple[int, int], size: int, window: int | None, seed: int
) -> None:
    buckets, lengths_R = shelf(lengths, heads[1], size, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    query, key, value = (torch.randn(len(lengths_R), n, size, generator=generator).bfloat16() for n in (*heads, heads[1]))
    out = compiled.step.attend(query, key, value, buckets, lengths_R, scale=0.2, window=window)
    row = 0
    for keys, values, num in buckets:
        for slot in range(num):
            length = int(lengths_R[row])
            assert torch.equal(keys[slot, :, length], key[row])
            assert torch.equal(values[slot, :, length], value[row])
            seen = slice(max(0, length + 1 - (window or length + 1)), length + 1)
            group = heads[0] // heads[1]
            k, v = (x[slot, :, seen].double().repeat_interleave(group, 0) for x in (keys, values))
            shares = torch.softmax(torch.einsum("hd,hjd->hj", query[row].double(), k) * 0.2, -1)
            expected = torch.einsum("hj,hjd->hd", shares, v)
            assert float((out[row].double() - expected).norm() / expected.norm()) < 0.004
            row += 1


def test_a_row_has_the_same_bits_alone(compiled: Compiled) -> None:
    buckets, lengths_R = shelf([[40, 3, 77], [200, 130]], 2, 64, 0)
    query, key, value = (torch.randn(5, n, 64, generator=torch.Generator().manual_seed(n)).bfloat16() for n in (6, 2, 2))
    out = compiled.step.attend(query, key, value, buckets, lengths_R, scale=0.125, window=None)
    keys, values, _ = buckets[1]
    alone = [(keys[1:2].clone(), values[1:2].clone(), 1)]
    found = compiled.step.attend(query[4:], key[4:], value[4:], alone, lengths_R[4:], scale=0.125, window=None)
    assert torch.equal(found[0], out[4])


@settings(max_examples=40, deadline=None)
@given(
    shared=st.integers(1, 60),
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    heads=st.sampled_from([(4, 2), (3, 1), (5, 1)]),
    window=st.sampled_from([None, 1, 16, 33, 64]),
    seed=st.integers(0, 1000),
)
def test_a_row_has_the_same_bits_where_all_share_their_first_keys(
    compiled: Compiled, shared: int, lengths: list[int], heads: tuple[int, int], window: int | None, seed: int
) -> None:
    [(keys, values, num)], own_R = shelf([lengths], heads[1], 64, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    first = [torch.randn(heads[1], shared, 64, generator=generator).bfloat16() for _ in range(2)]
    whole = [torch.cat([x.expand(len(rest), -1, -1, -1), rest], 2).contiguous() for x, rest in zip(first, (keys, values), strict=True)]
    new = [torch.randn(num, n, 64, generator=generator).bfloat16() for n in (*heads, heads[1])]
    apart = compiled.step.attend(*new, [(keys, values, num)], own_R, scale=0.2, window=window, shared=(first[0], first[1]))
    together = compiled.step.attend(*new, [(whole[0], whole[1], num)], own_R + shared, scale=0.2, window=window)
    assert torch.equal(apart, together)
    for row, length in enumerate(own_R.tolist()):
        assert torch.equal(keys[row, :, length], new[1][row]), "the new key lies after the row's own"


@pytest.mark.parametrize(("size", "taken"), [(64, True), (48, False), (512, False)])
def test_it_says_what_it_takes(compiled: Compiled, size: int, taken: bool) -> None:
    x = torch.zeros(1, 1, size)
    assert compiled.step.takes(x.bfloat16(), x.bfloat16()) is taken
    assert not compiled.step.takes(x, x)
