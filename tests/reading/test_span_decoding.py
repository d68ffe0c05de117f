"""The decoder against every span written out, and the windows' verdicts against their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.errors import ModelError
from campana.reading.combine import combine
from campana.reading.decode import decode
from campana.reading.settings import COMBINES


def all_spans(
    start: list[float], end: list[float], can_start: list[bool], can_end: list[bool], longest: int
) -> list[tuple[float, int, int]]:
    found = [
        (-float(np.float32(start[i]) + np.float32(end[j])), i, j)
        for i in range(len(start))
        for j in range(i, min(i + longest, len(start)))
        if can_start[i] and can_end[j]
    ]
    return sorted(found)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_the_best_spans_are_those_of_all_spans_ties_included(data: st.DataObject) -> None:
    windows, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 14))
    num_best, longest = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 16))
    logit = st.sampled_from([-2.0, 0.0, 0.1, 0.7, 1.0, 3.0]) | st.floats(-50, 50, width=32)  # few values: many ties
    rows = st.lists(st.lists(logit, min_size=length, max_size=length), min_size=windows, max_size=windows)
    masks = st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=windows, max_size=windows)
    start, end, can_start, can_end = data.draw(rows), data.draw(rows), data.draw(masks), data.draw(masks)
    logits, masks = [np.array(x, dtype=np.float32) for x in (start, end)], [np.array(x) for x in (can_start, can_end)]
    null_at = np.array(data.draw(st.lists(st.integers(0, length - 1), min_size=windows, max_size=windows)))
    found = decode(*logits, *masks, null_at, num_best=num_best, max_answer_tokens=longest)
    assert found.score.shape == (windows, num_best)
    for row in range(windows):
        expected = all_spans(start[row], end[row], can_start[row], can_end[row], longest)[:num_best]
        got = [(-s, i, j) for s, i, j in zip(*(x[row].tolist() for x in (found.score, found.start, found.end)), strict=True) if i >= 0]
        assert got == expected
        assert all(s == float("-inf") for s in found.score[row, len(expected) :].tolist())
        assert found.null[row].item() == float(np.float32(start[row][null_at[row]]) + np.float32(end[row][null_at[row]]))


def test_logits_that_are_not_numbers_are_refused_where_they_count() -> None:
    good, mask = np.zeros((1, 4), dtype=np.float32), np.array([[False, True, True, False]])
    bad = np.array([[0.0, 0.0, np.nan, 0.0]], dtype=np.float32)
    padding = np.array([[0.0, 0.0, 0.0, np.nan]], dtype=np.float32)
    first = np.array([0])
    with pytest.raises(ModelError, match="not finite"):
        decode(bad, good, mask, mask, first, num_best=3, max_answer_tokens=2)
    assert decode(padding, good, mask, mask, first, num_best=3, max_answer_tokens=2).start[0, 0] == 1


def verdict(how: str, windows: list[tuple[int, float, list[tuple[float, int, int]]]], num_examples: int = 1, num_best: int = 3):
    padded = [spans + [(-np.inf, -1, -1)] * (num_best - len(spans)) for _, _, spans in windows]
    columns = np.array(padded, dtype=np.float64).reshape(len(windows), num_best, 3)
    return combine(
        how,  # type: ignore[arg-type]
        num_examples,
        np.array([example for example, _, _ in windows], dtype=np.int64),
        columns[..., 0].astype(np.float32),
        columns[..., 1].astype(np.int64),
        columns[..., 2].astype(np.int64),
        np.array([null for _, null, _ in windows], dtype=np.float32),
    )


FOUND = (0, 1.0, [(5.0, 3, 4), (2.0, 3, 3)])
SURE_AND_EMPTY = (0, 90.0, [(1.0, 60, 61)])


@pytest.mark.parametrize("how", COMBINES)
def test_one_window_decides_alike_by_every_choice(how: str) -> None:
    found = verdict(how, [FOUND])
    assert found.margin[0].tolist() == [-4.0, -1.0, np.inf]
    assert found.start[0].tolist() == [3, 3, -1]


def test_a_window_that_is_sure_to_be_empty_changes_nothing_by_default() -> None:
    alone, both = verdict("margin", [FOUND]), verdict("margin", [SURE_AND_EMPTY, FOUND])
    assert both.margin[0, 0] == alone.margin[0, 0]
    assert both.start[0, :2].tolist() == alone.start[0, :2].tolist()
    assert verdict("highest-null", [SURE_AND_EMPTY, FOUND]).margin[0, 0] == 85.0
    assert verdict("mean-null", [SURE_AND_EMPTY, FOUND]).margin[0, 0] == 40.5
    assert verdict("lowest-null", [SURE_AND_EMPTY, FOUND]).margin[0, 0] == -4.0


def test_a_window_unsure_of_everything_does_not_lower_the_bar_by_default() -> None:
    unsure = (0, -20.0, [(-19.0, 40, 41)])
    empty = (0, 9.0, [(2.0, 3, 4)])
    assert verdict("lowest-null", [unsure, empty]).margin[0, 0] == -22.0
    assert verdict("margin", [unsure, empty]).margin[0, 0] == -1.0


def test_an_example_without_windows_has_no_span() -> None:
    found = verdict("margin", [(2, 0.0, [(1.0, 5, 5)])], num_examples=3)
    assert found.start[:, 0].tolist() == [-1, -1, 5]
    assert np.isposinf(found.margin[:2]).all()


@settings(deadline=None, max_examples=60)
@given(st.permutations(range(5)), st.sampled_from(COMBINES))
def test_the_order_of_windows_does_not_matter(order: list[int], how: str) -> None:
    windows = [FOUND, SURE_AND_EMPTY, (1, 0.0, [(3.0, 1, 1)]), (1, 2.0, [(4.0, 9, 9), (3.5, 8, 9)]), (0, 3.0, [])]
    expected, got = verdict(how, windows, 2), verdict(how, [windows[i] for i in order], 2)
    np.testing.assert_allclose(got.margin, expected.margin)
    np.testing.assert_array_equal(got.start, expected.start)
