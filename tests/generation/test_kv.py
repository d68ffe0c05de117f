"""Where keys and values lie: nothing is lost when rows come, grow, move and go."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campana.generation import kv
from campana.generation.engine import Request
from campana.generation.kv import Pages, Row, Shelf, capacity_for, pages_for

SIZE = (2, 3)
PAGE_SHAPE = (SIZE[0], kv.PAGE, SIZE[1])
LIKE = torch.zeros(1)


def write(row: Row, place: int) -> None:
    """A row's key and value at a place: a number that names both."""
    assert row.bucket is not None
    for layer in (0, 1):
        for part, kept in enumerate(row.bucket.open(layer, SIZE, SIZE, LIKE)):
            kept[row.slot, :, place] = float(row.request.id) * 1000 + place + 0.25 * layer + 0.125 * part


def check(shelf: Shelf) -> None:
    buckets = shelf.buckets
    for before, bucket in pairwise(buckets):
        assert before.capacity < bucket.capacity or (before.capacity == bucket.capacity and len(before.rows) == kv.ROWS)
    for bucket in buckets:
        assert 0 < len(bucket.rows) <= kv.ROWS, "an empty bucket goes"
        for slot, row in enumerate(bucket.rows):
            assert (row.bucket, row.slot) == (bucket, slot)
            assert row.length <= bucket.capacity
            for layer in (0, 1):
                for part, kept in enumerate(bucket.open(layer, SIZE, SIZE, LIKE)):
                    assert kept[: len(bucket.rows)].isfinite().all()
                    expected = float(row.request.id) * 1000 + torch.arange(row.length) + 0.25 * layer + 0.125 * part
                    assert torch.equal(kept[slot, 0, : row.length, 0], expected)


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv, "ROWS", 3)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(1, 200), st.integers(-9, -1), st.just(0)), max_size=40))
def test_rows_keep_what_was_written(actions: list[int]) -> None:
    shelf, made, present = Shelf(), 0, set[str]()
    for action in actions:
        if action > 0:
            row = Row(Request(str(made), (1,)), action)
            made += 1
            shelf.put(row)
            present.add(row.request.id)
            for place in range(action):
                write(row, place)
        elif action < 0 and shelf.rows:
            row = shelf.rows[-action % len(shelf.rows)]
            shelf.take_out(row)
            present.remove(row.request.id)
        else:
            for _ in range(40):
                shelf.advance()
                for row in shelf.rows:
                    write(row, row.length)
                    row.length += 1
        assert {row.request.id for row in shelf.rows} == present
        check(shelf)


def test_capacities_hold_their_length_and_waste_little() -> None:
    for length in range(1, 5000):
        capacity = capacity_for(length)
        assert length <= capacity <= max(length + 63, length * 1.25 + 1)
        assert capacity_for(capacity) == capacity, "the longest of a bucket is in it"
        assert capacity % 32 == 0, "whole cache lines for every head"


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(1, 200), st.integers(-9, -1), st.just(0)), max_size=40))
def test_a_page_is_one_rows_and_holds_its_next_token(actions: list[int]) -> None:
    kept, most = Pages(), 0
    for action in actions:
        if action > 0:
            kept.put(Row(Request("", (1,)), action))
        elif action < 0 and kept.rows:
            kept.take_out(kept.rows[-action % len(kept.rows)])
        else:
            for row in kept.rows:
                row.length += 1
            kept.advance()
        held = [page for row in kept.rows for page in row.pages]
        assert len(set(held)) == len(held)
        assert [len(row.pages) for row in kept.rows] == [pages_for(row.length + 1) for row in kept.rows]
        most = max(most, len(held))
        slabs = kept.slabs(0, PAGE_SHAPE, PAGE_SHAPE, LIKE)
        assert len(slabs) * kv.SLAB >= len(held)
        assert (len(slabs) - 1) * kv.SLAB < most, "pages that are free are used before memory is taken"
        assert all(part.shape == (kv.SLAB, *PAGE_SHAPE) for slab in slabs for part in slab)
