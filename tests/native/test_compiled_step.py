"""One new token of each answer attends by the definition, over its own keys alone, and its key and value are kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from campana.native.compiled import Compiled

PAGE, SLAB = 16, 3
Slabs = list[tuple[Tensor, Tensor]]


def pages(lengths: list[int], kv_heads: int, size: int, seed: int) -> tuple[Slabs, Tensor, Tensor, Tensor, Tensor]:
    """Slabs, each row's pages (anywhere in them), lengths; and the keys and values that the rows have there, (R, L, K, D) each.

    Places that no row has yet hold what would show.
    """
    generator = torch.Generator().manual_seed(seed)
    own = [length // PAGE + 1 for length in lengths]  # room for one token more
    num_slabs = -(-sum(own) // SLAB)
    order = torch.randperm(num_slabs * SLAB, generator=generator).tolist()
    table = torch.zeros(len(lengths), max(own), dtype=torch.int32)
    for row, num in enumerate(own):
        table[row, :num] = torch.tensor([order.pop() for _ in range(num)])
    shape = (SLAB, kv_heads, PAGE, size)
    slabs = [(torch.full(shape, 1e4).bfloat16(), torch.full(shape, torch.nan).bfloat16()) for _ in range(num_slabs)]
    keys, values = (torch.randn(len(lengths), max(lengths) + 1, kv_heads, size, generator=generator).bfloat16() for _ in range(2))
    for row, length in enumerate(lengths):
        for place in range(length):
            for part, each in enumerate((keys, values)):
                at(slabs, table, row, place)[part][:] = each[row, place]
    return slabs, table, torch.tensor(lengths), keys, values


def at(slabs: Slabs, table: Tensor, row: int, place: int) -> tuple[Tensor, Tensor]:
    """Key and value (K, D) of a row's token, as they lie."""
    page = int(table[row, place // PAGE])
    keys, values = slabs[page // SLAB]
    return keys[page % SLAB, :, place % PAGE], values[page % SLAB, :, place % PAGE]


def new_tokens(rows: int, heads: tuple[int, int], size: int, seed: int) -> list[Tensor]:
    """Query, key and value."""
    generator = torch.Generator().manual_seed(seed + 1)
    return [torch.randn(rows, num, size, generator=generator).bfloat16() for num in (*heads, heads[1])]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 100), min_size=1, max_size=8),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (4, 1), (12, 2)]),
    size=st.sampled_from([32, 64, 96, 256]),
    window=st.sampled_from([None, 1, 16, 33]),
    seed=st.integers(0, 1000),
)
def test_it_is_attention(compiled: Compiled, lengths: list[int], heads: tuple[int, int], size: int, window: int | None, seed: int) -> None:
    slabs, table, lengths_R, keys, values = pages(lengths, heads[1], size, seed)
    query, key, value = new_tokens(len(lengths), heads, size, seed)
    out = compiled.step.attend(query, key, value, slabs, table, lengths_R, scale=0.2, window=window)
    for row, length in enumerate(lengths):
        written = at(slabs, table, row, length)
        assert torch.equal(written[0], key[row])
        assert torch.equal(written[1], value[row])
        seen = slice(max(0, length + 1 - (window or length + 1)), length + 1)
        keys[row, length], values[row, length] = key[row], value[row]
        k, v = (x[row, seen].double().repeat_interleave(heads[0] // heads[1], 1) for x in (keys, values))
        shares = torch.softmax(torch.einsum("hd,jhd->hj", query[row].double(), k) * 0.2, -1)
        expected = torch.einsum("hj,jhd->hd", shares, v)
        assert float((out[row].double() - expected).norm() / expected.norm()) < 0.004


def test_a_row_has_the_same_bits_alone_and_wherever_its_pages_lie(compiled: Compiled) -> None:
    lengths = [40, 3, 77, 200, 130]
    slabs, table, lengths_R, keys, values = pages(lengths, 2, 64, 0)
    new = new_tokens(5, (6, 2), 64, 0)
    out = compiled.step.attend(*new, slabs, table, lengths_R, scale=0.125, window=None)
    for row, length in enumerate(lengths):
        elsewhere, other_table, _, _, _ = pages([length], 2, 64, 7)
        for place in range(length):
            for part, each in enumerate((keys, values)):
                at(elsewhere, other_table, 0, place)[part][:] = each[row, place]
        one = (x[row : row + 1] for x in new)
        found = compiled.step.attend(*one, elsewhere, other_table, lengths_R[row : row + 1], scale=0.125, window=None)
        assert torch.equal(found[0], out[row])


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
    whole, whole_table, whole_R, keys, values = pages([shared + length for length in lengths], heads[1], 64, seed)
    own, table, own_R, _, _ = pages(lengths, heads[1], 64, seed)
    for row, length in enumerate(lengths):
        for place in range(shared):
            for part, each in enumerate((keys, values)):
                at(whole, whole_table, row, place)[part][:] = each[0, place]
        for place in range(length):
            for part, each in enumerate((keys, values)):
                at(own, table, row, place)[part][:] = each[row, shared + place]
    first = [each[0, :shared].transpose(0, 1).contiguous() for each in (keys, values)]
    new = new_tokens(len(lengths), heads, 64, seed)
    together = compiled.step.attend(*new, whole, whole_table, whole_R, scale=0.2, window=window)
    apart = compiled.step.attend(*new, own, table, own_R, scale=0.2, window=window, shared=(first[0], first[1]))
    assert torch.equal(apart, together)


def test_prompts_are_kept_where_their_places_are(compiled: Compiled) -> None:
    slabs, table, _, _, _ = pages([40, 20], 2, 64, 3)
    wanted = [(row, place) for row, length in ((0, 40), (1, 20)) for place in range(length)]
    places = torch.tensor([int(table[row, place // PAGE]) * PAGE + place % PAGE for row, place in wanted])
    _, key, value = new_tokens(60, (2, 2), 64, 3)
    compiled.step.keep(key, value, slabs, places)
    for token, (row, place) in enumerate(wanted):
        found = at(slabs, table, row, place)
        assert torch.equal(found[0], key[token])
        assert torch.equal(found[1], value[token])


@pytest.mark.parametrize(("size", "taken"), [(64, True), (48, False), (512, False)])
def test_it_says_what_it_takes(compiled: Compiled, size: int, taken: bool) -> None:
    x = torch.zeros(1, 1, size)
    assert compiled.step.takes(x.bfloat16(), x.bfloat16()) is taken
    assert not compiled.step.takes(x, x)
