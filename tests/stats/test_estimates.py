"""Intervals: their closed forms, their invariances, and what they say where the data hardly vary."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from campana.stats.components import components
from campana.stats.estimate import Difference, score_estimate

LAW = settings(deadline=None, max_examples=40)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A table of scores, S x N, with its categories."""
    seeds, count, categories = draw(st.integers(1, 5)), draw(st.integers(4, 40)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scores = rng.random((seeds, count))
    return (np.round(scores) if draw(st.booleans()) else scores), rng.integers(0, categories, count)


def test_one_category_and_one_seed_is_the_t_interval() -> None:
    gaps = np.random.default_rng(3).normal(0.05, 0.2, 40)
    found = Difference.of(components(gaps[None], np.zeros(40, int), "macro"), 40)
    told = stats.ttest_1samp(gaps, 0.0)
    estimate = found.estimate(0.95)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(told.confidence_interval(0.95)))
    assert found.p_value() == pytest.approx(told.pvalue)
    assert estimate.degrees_of_freedom == pytest.approx(39)


def test_right_or_wrong_scores_of_one_category_have_wilsons_interval() -> None:
    scores = np.array([[1.0] * 27 + [0.0] * 3])
    estimate = score_estimate(components(scores, np.zeros(30, int), "micro"), 0.95)
    t2 = stats.t.ppf(0.975, 29) ** 2
    count = 29  # the variance divides by n - 1, so that many prompts are effective
    centre = (0.9 + t2 / (2 * count)) / (1 + t2 / count)
    half = math.sqrt(t2 * (0.09 / count + t2 / (4 * count**2))) / (1 + t2 / count)
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))


def test_seeds_alone_give_the_t_interval_of_the_seeds() -> None:
    luck = np.array([[-0.03], [0.01], [0.05]])
    found = Difference.of(components(np.broadcast_to(luck, (3, 50)).copy(), np.zeros(50, int), "macro"), 50)
    told = stats.t.interval(0.95, 2, 0.01, luck.std(ddof=1) / math.sqrt(3))
    estimate = found.estimate(0.95)
    assert (estimate.low, estimate.high) == pytest.approx(told, rel=0.02)  # the rest is the adjustment for prompts that do not vary


@pytest.mark.parametrize(("seeds", "most"), [(2, 0.014), (3, 0.014)])
def test_strict_intervals_err_as_rarely_as_promised_where_luck_is_half_of_the_variance(seeds: int, most: float) -> None:
    rng, studies, prompts = np.random.default_rng(0), 3000, 200
    luck = math.sqrt((1 + 25 / seeds) / prompts * seeds)
    wrong = 0
    for _ in range(studies):
        table = luck * rng.standard_normal((seeds, 1)) + rng.standard_normal(prompts) + 5 * rng.standard_normal((seeds, prompts))
        difference = Difference.of(components(table, np.zeros(prompts, int), "macro"), prompts)
        p_value = difference.p_value() or 0.0
        estimate = difference.estimate(0.99)
        assert estimate.low is not None
        assert estimate.high is not None
        assert (p_value <= 0.01) == (estimate.low > 0 or estimate.high < 0)
        wrong += p_value <= 0.01
    assert wrong / studies <= most, wrong / studies


def test_prompts_that_differ_alike_within_their_categories_are_not_taken_for_certainty() -> None:
    codes = np.repeat(np.arange(7), 10)
    estimate = Difference.of(components((codes < 2).astype(float)[None], codes, "macro"), 20).estimate(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((0.257, 0.314), abs=0.001)  # one of 70 prompts more is 0.014


@pytest.mark.parametrize("value", [1 / 3, 2 / 3, 0.9])
def test_rounding_is_not_luck(value: float) -> None:
    found = components(np.full((3, 10), value), np.zeros(10, int), "macro")
    assert found.seeds_and_residual == 0
    estimate = score_estimate(found, 0.95)
    assert estimate.low is not None
    assert estimate.low < value - 0.1


def test_components_are_unbiased() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1], [20, 60])
    sums = np.zeros(3)
    for _ in range(1500):
        luck = 0.05 * rng.standard_normal((4, 1))
        table = 0.5 + luck + 0.2 * rng.standard_normal(80) + 0.3 * rng.standard_normal((4, 80))
        parts = components(table, codes, "macro")
        assert parts.prompts_and_residual is not None
        assert parts.seeds_and_residual is not None
        assert parts.residual is not None
        sums += (parts.prompts_and_residual - parts.residual, parts.seeds_and_residual - parts.residual, parts.residual)
    share = 0.25 / 20 + 0.25 / 60
    assert sums / 1500 == pytest.approx([0.2**2 * share, 0.05**2 / 4, 0.3**2 * share / 4], rel=0.08)


@LAW
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_prompts_and_seeds_moves_nothing(table, random) -> None:
    scores, codes = table
    columns, rows = list(range(scores.shape[1])), list(range(scores.shape[0]))
    random.shuffle(columns)
    random.shuffle(rows)
    for average in ("macro", "micro"):
        one = score_estimate(components(scores, codes, average), 0.95)
        other = score_estimate(components(scores[rows][:, columns], codes[columns], average), 0.95)
        assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high), abs=1e-9)


@LAW
@given(tables(), st.floats(-0.5, 0.5))
def test_adding_a_constant_to_a_difference_moves_it_and_nothing_else(table, constant) -> None:
    scores, codes = table
    one, other = components(scores, codes, "macro"), components(scores + constant, codes, "macro")
    assert other.mean == pytest.approx(one.mean + constant)
    assert other.variance == pytest.approx(one.variance, abs=1e-12)
    assert other.prompts_df == pytest.approx(one.prompts_df, rel=1e-6)


@LAW
@given(tables())
def test_swapping_sides_negates_the_difference(table) -> None:
    scores, codes = table
    gaps = scores - scores[:, ::-1]
    count = int((np.abs(gaps.mean(0)) > 1e-9).sum())
    one = Difference.of(components(gaps, codes, "macro"), count)
    other = Difference.of(components(-gaps, codes, "macro"), count)
    left, right = one.estimate(0.95), other.estimate(0.95)
    assert (left.mean, left.low, left.high) == pytest.approx((-right.mean, -right.high, -right.low), abs=1e-12)
    assert one.p_value() == pytest.approx(other.p_value())


@LAW
@given(tables())
def test_an_interval_holds_its_mean_within_the_range_of_scores(table) -> None:
    scores, codes = table
    for average in ("macro", "micro"):
        estimate = score_estimate(components(scores, codes, average), 0.95)
        assert 0.0 <= estimate.low <= estimate.mean <= estimate.high <= 1.0


@LAW
@given(tables())
def test_the_three_variances_add_up_to_the_squared_error(table) -> None:
    parts = components(*table, "macro")
    if parts.variance is not None and parts.num_seeds > 1:
        assert parts.prompts + parts.seeds + parts.residual == pytest.approx(parts.variance)
        assert min(parts.prompts, parts.seeds, parts.residual) >= 0


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_equal_scores_are_not_taken_for_certainty(value) -> None:
    estimate = score_estimate(components(np.full((1, 10), value), np.zeros(10, int), "macro"), 0.95)
    assert estimate.mean == value
    assert estimate.high - estimate.low > 0.2


def test_ten_equal_answers_leave_the_difference_open_and_itself_does_not() -> None:
    equal = Difference.of(components(np.zeros((1, 10)), np.zeros(10, int), "macro"), 0)
    assert equal.estimate(0.95).high > 0.1
    assert equal.p_value() == 1.0
    itself = Difference.of_itself().estimate(0.95)
    assert (itself.mean, itself.low, itself.high) == (0.0, 0.0, 0.0)


def test_one_prompt_tells_nothing_but_its_own_score() -> None:
    parts = components(np.array([[0.7]]), np.zeros(1, int), "macro")
    assert score_estimate(parts, 0.95).low == 0.0
    assert score_estimate(parts, 0.95).high == 1.0
    assert Difference.of(parts, 1).p_value() is None


def test_a_category_of_one_prompt_takes_the_spread_of_the_others() -> None:
    scores = np.random.default_rng(0).random((1, 21))
    codes = np.array([0] * 10 + [1] * 10 + [2])
    parts = components(scores, codes, "macro")
    squares = sum(float(scores[0, codes == code].var(ddof=1)) for code in (0, 1))
    assert parts.variance == pytest.approx((squares / 10 + squares / 2) / 9)
    alone = components(scores, np.arange(21), "macro")
    assert alone.variance == pytest.approx(scores.var(ddof=1) / 21)


def test_macro_and_micro_differ_by_the_weight_of_a_category() -> None:
    scores, codes = np.array([[1.0, 1.0, 1.0, 0.0]]), np.array([0, 0, 0, 1])
    assert components(scores, codes, "macro").mean == 0.5
    assert components(scores, codes, "micro").mean == 0.75


def test_more_luck_makes_the_interval_wider() -> None:
    rng = np.random.default_rng(1)
    base, luck = rng.random((3, 60)) * 0.5, np.array([[-1.0], [0.0], [1.0]])
    widths = []
    for size in (0.0, 0.05, 0.1, 0.2):
        estimate = score_estimate(components(base + 0.25 + size * luck, np.zeros(60, int), "macro"), 0.95)
        widths.append(estimate.high - estimate.low)
    assert widths == sorted(widths)
    assert widths[-1] > 4 * widths[0]


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(ValueError, match="0 prompts"):
        components(np.zeros((2, 0)), np.zeros(0, int), "macro")
