from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.data.packing import pack, plan_steps, shuffled

lengths = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@settings(deadline=None, max_examples=150)
@given(lengths=lengths, batch_tokens=st.integers(1, 600), epochs=st.floats(0.01, 4), seed=st.integers(0, 2**40))
def test_steps_hold_the_right_rows_of_each_epoch(lengths, batch_tokens, epochs, seed) -> None:
    steps = plan_steps(lengths, batch_tokens, epochs, seed)
    assert all(len(step) == 1 or sum(lengths[row] for row in step) <= batch_tokens for step in steps)
    order = [row for step in steps for row in step]
    assert len(order) == max(1, round(epochs * len(lengths)))
    whole = [order[start : start + len(lengths)] for start in range(0, len(order), len(lengths))]
    assert all(len(set(epoch)) == len(epoch) for epoch in whole)
    assert all(len(set(step)) == len(step) for step in steps)
    assert steps == plan_steps(np.array(lengths), batch_tokens, epochs, seed)


def test_part_of_an_epoch_begins_as_the_whole_one_and_seeds_and_epochs_differ() -> None:
    sizes = [1] * 100
    order = [row for step in plan_steps(sizes, 10, 2.5, 7) for row in step]
    assert order[200:] == shuffled(100, 7, 2).tolist()[:50]
    assert [row for step in plan_steps(sizes, 10, 0.5, 7) for row in step] == order[:50]
    assert order[:100] != order[100:200]
    assert order[:100] != shuffled(100, 8, 0).tolist()
    assert sorted(order[:100]) == list(range(100))


def test_a_small_data_set_still_makes_one_step_an_epoch() -> None:
    assert len(plan_steps([5, 5], 1000, 3, 0)) == 3


def test_the_order_is_pinned_for_ever() -> None:
    assert shuffled(8, 0, 0).tolist() == [4, 0, 1, 7, 6, 2, 5, 3]


def test_shuffles_are_fair() -> None:
    places = np.array([np.argsort(shuffled(10, seed, 0))[0] for seed in range(4000)])
    counts = np.bincount(places, minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi squared, 9 degrees of freedom, p = 0.001


@settings(deadline=None, max_examples=150)
@given(lengths=lengths, budget=st.integers(1, 600))
def test_bins_hold_each_row_once_within_the_budget_and_few_are_used(lengths, budget) -> None:
    bins = pack(lengths, budget)
    assert sorted(row for rows in bins for row in rows) == list(range(len(lengths)))
    loads = [sum(lengths[row] for row in rows) for rows in bins]
    assert all(load <= budget or len(rows) == 1 for load, rows in zip(loads, bins, strict=True))
    fitting = [load for load in loads if load <= budget]
    assert len(fitting) < 2 or 2 * sum(fitting) > len(fitting) * budget  # on average more than half full
    assert fitting == sorted(fitting, reverse=True)


def test_bins_are_even_where_as_many_suffice() -> None:
    def loads(lengths: list[int], budget: int) -> list[int]:
        return [sum(lengths[row] for row in rows) for rows in pack(lengths, budget)]

    assert loads([300] * 9, 1280) == [900, 900, 900]  # and not 1200, 1200 and 300
    assert loads([2000, *[300] * 5], 1280) == [2000, 900, 600]
    assert loads([6, 4, 4, 3, 3], 10) == [10, 10]  # evenly spread these would need a third bin
    assert loads([], 10) == []


def test_best_fit_beats_taking_rows_as_they_come() -> None:
    sizes = np.random.default_rng(0).integers(20, 700, 2000)
    bins = pack(sizes, 1024)
    assert len(bins) <= 1.01 * sizes.sum() / 1024 + 1


def test_a_million_rows_are_planned_in_seconds() -> None:
    sizes = np.random.default_rng(0).integers(10, 500, 1_000_000)
    begin = time.process_time()
    steps = plan_steps(sizes, 8192, 1.0, 0)
    assert time.process_time() - begin < 5
    assert sum(len(step) for step in steps) == 1_000_000


@pytest.mark.parametrize(("batch_tokens", "epochs"), [(0, 1.0), (10, 0.0), (10, float("nan"))])
def test_nonsense_is_refused(batch_tokens, epochs) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        plan_steps([1], batch_tokens, epochs, 0)
