"""Tokens attend by the definition, each over the keys of its row up to its own, and a token's bits depend on nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from campana.native.tokens import PAGE, Tokens

SLAB = 3


class Rows:
    """Rows with keys and values (R, L, K, D), and pages for them anywhere in some slabs. Places that no row has hold what would show."""

    def __init__(self, keys: Tensor, values: Tensor, seed: int) -> None:
        self.keys, self.values = keys, values
        num_rows, longest, kv_heads, size = keys.shape
        width = -(-longest // PAGE)
        num_slabs = -(-num_rows * width // SLAB)
        order = torch.randperm(num_slabs * SLAB, generator=torch.Generator().manual_seed(seed))
        self.table = order[: num_rows * width].view(num_rows, width).int()
        shapes = (SLAB, kv_heads, size, PAGE), (SLAB, kv_heads, PAGE, size)
        self.slabs = [(torch.full(shapes[0], torch.nan), torch.full(shapes[1], torch.nan)) for _ in range(num_slabs)]

    def places(self, row: int, length: int) -> Tensor:
        """Of a row's first tokens, counted over all pages."""
        own = torch.arange(length)
        return self.table[row].long()[own // PAGE] * PAGE + own % PAGE

    def keep(self, tokens: Tokens, lengths: list[int]) -> None:
        """Write each row's first so many."""
        for row, length in enumerate(lengths):
            tokens.keep(self.keys[row, :length], self.values[row, :length], self.slabs, self.places(row, length))

    def kept(self, row: int, place: int) -> tuple[Tensor, Tensor]:
        """Key and value (K, D) as they lie."""
        page = int(self.table[row, place // PAGE])
        keys, values = self.slabs[page // SLAB]
        return keys[page % SLAB, :, :, place % PAGE], values[page % SLAB, :, place % PAGE]


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_definition(query_HD: Tensor, key_LKD: Tensor, value_LKD: Tensor, scale: float, window: int | None) -> Tensor:
    seen = slice(max(0, len(key_LKD) - (window or len(key_LKD))), None)
    k, v = (x[seen].double().repeat_interleave(len(query_HD) // x.shape[1], 1) for x in (key_LKD, value_LKD))
    return torch.einsum("hj,jhd->hd", torch.softmax(torch.einsum("hd,jhd->hj", query_HD.double(), k) * scale, -1), v)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=8),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (4, 1), (14, 2)]),
    size=st.sampled_from([8, 24, 64, 80, 256]),
    window=st.sampled_from([None, 1, 16, 33]),
    seed=st.integers(0, 1000),
)
def test_it_is_attention(tokens: Tokens, lengths: list[int], heads: tuple[int, int], size: int, window: int | None, seed: int) -> None:
    """Some tokens of each row: its last, and one in the middle."""
    rows = Rows(*(numbers(len(lengths), max(lengths), heads[1], size, seed=seed + n) for n in (0, 1)), seed)
    rows.keep(tokens, lengths)
    rows_T = torch.arange(len(lengths)).repeat(2)
    lengths_T = torch.tensor([*lengths, *(1 + length // 2 for length in lengths)]).minimum(torch.tensor(lengths).repeat(2))
    query = numbers(len(rows_T), heads[0], size, seed=seed + 2)
    out = tokens.attend(query, rows.slabs, rows.table, rows_T.int(), lengths_T, scale=0.2, window=window)
    for token, (row, length) in enumerate(zip(rows_T.tolist(), lengths_T.tolist(), strict=True)):
        expected = by_definition(query[token], rows.keys[row, :length], rows.values[row, :length], 0.2, window)
        assert float((out[token] - expected).abs().max()) < 1e-5


def test_tokens_are_kept_where_their_places_are(tokens: Tokens) -> None:
    rows = Rows(numbers(4, 70, 2, 32, seed=0), numbers(4, 70, 2, 32, seed=1), 0)
    lengths = [1, 32, 33, 70]
    rows.keep(tokens, lengths)
    for row, length in enumerate(lengths):
        for place in range(length):
            key, value = rows.kept(row, place)
            assert torch.equal(key, rows.keys[row, place])
            assert torch.equal(value, rows.values[row, place])


@settings(max_examples=40, deadline=None)
@given(
    shared=st.integers(1, 80),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    heads=st.sampled_from([(4, 2), (3, 1), (5, 1)]),
    window=st.sampled_from([None, 1, 16, 33, 64]),
    seed=st.integers(0, 1000),
)
def test_a_token_has_the_same_bits_alone_wherever_its_pages_lie_and_where_all_share_their_first_keys(
    tokens: Tokens, shared: int, lengths: list[int], heads: tuple[int, int], window: int | None, seed: int
) -> None:
    num, longest = len(lengths), shared + max(lengths)
    keys, values = (numbers(num, longest, heads[1], 64, seed=seed + n) for n in (0, 1))
    keys[:, :shared], values[:, :shared] = keys[:1, :shared].clone(), values[:1, :shared].clone()
    query, rows_T, lengths_R = numbers(num, heads[0], 64, seed=seed + 2), torch.arange(num, dtype=torch.int32), torch.tensor(lengths)
    whole, own = Rows(keys, values, seed), Rows(keys[:, shared:], values[:, shared:], seed + 7)
    first = Rows(keys[:1, :shared], values[:1, :shared], 0)
    first.slabs = [(torch.full((4, heads[1], 64, PAGE), torch.nan), torch.full((4, heads[1], PAGE, 64), torch.nan))]
    first.table = torch.arange(4, dtype=torch.int32)[None]
    whole.keep(tokens, [shared + length for length in lengths])
    own.keep(tokens, lengths)
    first.keep(tokens, [shared])
    together = tokens.attend(query, whole.slabs, whole.table, rows_T, lengths_R + shared, scale=0.2, window=window)
    apart = tokens.attend(query, own.slabs, own.table, rows_T, lengths_R, scale=0.2, window=window, shared=(first.slabs[0], shared))
    assert torch.equal(apart, together)
    for row in range(num):
        one = slice(row, row + 1)
        alone = tokens.attend(query[one], whole.slabs, whole.table[one], rows_T[:1], lengths_R[one] + shared, scale=0.2, window=window)
        assert torch.equal(alone, together[one])


def test_results_do_not_depend_on_the_number_of_threads(tokens: Tokens) -> None:
    rows = Rows(numbers(40, 50, 2, 64, seed=0), numbers(40, 50, 2, 64, seed=1), 0)
    rows.keep(tokens, [50] * 40)
    query, before, found = numbers(40, 6, 64, seed=2), torch.get_num_threads(), list[Tensor]()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            rows_T, lengths_T = torch.arange(40, dtype=torch.int32), torch.arange(11, 51)
            found.append(tokens.attend(query, rows.slabs, rows.table, rows_T, lengths_T, scale=0.2, window=None))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found)


def test_hidden_scores_weigh_nothing_and_large_ones_do_not_overflow(tokens: Tokens) -> None:
    rows = Rows(torch.zeros(1, 40, 1, 8), torch.ones(1, 40, 1, 8), 0)
    rows.keys[0, 7] = 30.0
    rows.values[0, 7] = 5.0
    rows.keep(tokens, [40])
    query = torch.full((1, 1, 8), 30.0)
    row, length = torch.zeros(1, dtype=torch.int32), torch.tensor([40])
    out = tokens.attend(query, rows.slabs, rows.table, row, length, scale=1.0, window=None)
    assert torch.equal(out, torch.full((1, 1, 8), 5.0)), "7,200 more than any other"


@pytest.mark.parametrize(("size", "taken"), [(64, True), (24, True), (20, False), (512, False)])
def test_it_says_what_it_takes(tokens: Tokens, size: int, taken: bool) -> None:
    x = torch.zeros(1, 1, size)
    assert tokens.takes(x, x) is taken
    assert not tokens.takes(x.bfloat16(), x.bfloat16())
