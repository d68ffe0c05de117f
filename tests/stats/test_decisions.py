"""Verdicts, multiplicity, what would resolve a comparison, and the Pareto front."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from campana.stats.components import components
from campana.stats.contrast import sentence, side_name, verdict
from campana.stats.estimate import Difference, Estimate
from campana.stats.multiplicity import Family, holm
from campana.stats.pareto import pareto_front
from campana.stats.power import Needed, half_width, needed

LAW = settings(deadline=None, max_examples=25)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.012, 0.05, "better"),
        (-0.05, -0.012, "worse"),
        (-0.01, 0.015, "equivalent"),
        (0.002, 0.015, "equivalent"),
        (-0.02, 0.02, "equivalent"),
        (-0.01, 0.03, "not resolved"),
        (0.0, 0.03, "not resolved"),
    ],
)
def test_a_verdict_is_read_off_the_interval(low, high, expected) -> None:
    assert verdict(Estimate((low + high) / 2, low, high, 0.01, 80.0), 0.02) == expected


def test_no_score_in_common_is_not_resolved() -> None:
    nothing = Estimate(None, None, None, None, None)
    assert verdict(nothing, 0.02) == "not resolved"
    words = sentence(("a", "b"), nothing, "95%", found="not resolved", more=Needed(None, None), margin=0.02)
    assert words == "a and b have no scored prompt in common: not resolved."


def test_sentences() -> None:
    def told(mean, low, high, found, more=Needed(None, None)):  # noqa: B008 -- frozen
        return sentence(("lora", "full"), Estimate(mean, low, high, 0.01, 80.0), "95%", found=found, more=more, margin=0.02)

    assert told(0.031, 0.012, 0.05, "better") == "lora scores 0.031 higher than full (95% interval 0.012 to 0.050): better."
    assert told(-0.031, -0.05, -0.012, "worse") == "lora scores 0.031 lower than full (95% interval 0.012 to 0.050): worse."
    assert told(0.001, -0.01, 0.012, "equivalent").endswith("(95% interval -0.010 to 0.012): equivalent within 0.02.")
    assert told(0.01, -0.02, 0.04, "not resolved", Needed(1200, 1)).endswith(": not resolved; 1,200 more prompts or 1 more seed would.")
    assert told(0.0, 0.0, 0.0, "equivalent").startswith("lora and full score the same")


def test_a_side_is_called_by_what_its_arms_share_alone() -> None:
    levels = {f"{m}/{s}": {"method": m, "size": s} for m in ("lora", "full") for s in ("1k", "4k")}
    assert side_name(("lora/1k", "lora/4k"), ("full/1k", "full/4k"), levels) == "lora"
    assert side_name(("lora/1k",), ("full/1k",), levels) == "lora/1k"
    assert side_name(("lora/1k", "full/4k"), ("full/1k", "lora/4k"), levels) == "the mean of lora/1k, full/4k"


def test_holm_on_a_known_example() -> None:
    # By hand: 4 * 0.005, 3 * 0.01, 2 * 0.03, and 1 * 0.04 raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_independent_tests_are_adjusted_as_sidak() -> None:
    family = Family.of([0.02, 0.3, 0.9, 0.04], np.eye(4), 0.95, seed=0)
    assert family.confidence == pytest.approx(0.95**0.25, abs=0.0015)
    assert family.adjusted == pytest.approx([1 - (1 - p) ** 4 for p in (0.02, 0.3, 0.9, 0.04)], abs=0.006)


def test_copies_of_one_test_cost_nothing() -> None:
    family = Family.of([0.02, 0.02, 0.02], np.ones((3, 3)), 0.95, seed=0)
    assert family.confidence == pytest.approx(0.95, abs=0.003)
    assert family.adjusted == pytest.approx([0.02] * 3, abs=0.002)


@LAW
@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6), st.integers(0, 100), st.floats(0.8, 0.99))
def test_adjusted_p_values_are_monotone_and_agree_with_the_intervals(p_values, seed, confidence) -> None:
    basis = np.random.default_rng(seed).standard_normal((len(p_values), 3))
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    family = Family.of(p_values, basis @ basis.T, confidence, seed)
    order = np.argsort(p_values, kind="stable")
    assert list(np.array(family.adjusted)[order]) == sorted(family.adjusted)
    alpha = 1.0 - confidence
    for p, adjusted in zip(p_values, family.adjusted, strict=True):
        assert p <= adjusted <= max(min(1.0, len(p_values) * p), np.nextafter(alpha, 1)) + 0.006
        assert (adjusted <= alpha) == (p <= 1.0 - family.confidence)


def test_a_family_of_one_stands_alone() -> None:
    assert Family.of([0.04], np.ones((1, 1)), 0.95, seed=0) == Family((0.04,), 0.95)


def _gaps(mean: float, luck: float, seeds: int = 3, count: int = 100) -> np.ndarray:
    rng = np.random.default_rng(5)
    effects = luck * (np.arange(seeds) - (seeds - 1) / 2)[:, None]
    noise = rng.standard_normal((seeds, count)) * 0.2 + rng.standard_normal(count) * 0.2
    return mean + effects + noise - noise.mean(axis=1, keepdims=True)


def test_the_needed_prompts_are_the_smallest_number_that_resolves() -> None:
    parts = components(_gaps(0.03, 0.0)[:1], np.zeros(100, int), "macro")
    more = needed(parts, 100, 0.95, 0.02)
    assert more.seeds is None  # one seed tells nothing of luck
    assert more.prompts is not None
    assert half_width(parts, 100, 0.95, 100 + more.prompts, 1) < 0.03 <= half_width(parts, 100, 0.95, 100 + more.prompts - 1, 1)
    error = np.sqrt(parts.variance * 100 / (100 + more.prompts))
    assert error * stats.t.ppf(0.975, 99 * (100 + more.prompts) / 100) == pytest.approx(0.03, rel=0.01)


def test_where_luck_decides_prompts_do_not_help_and_seeds_do() -> None:
    more = needed(components(_gaps(0.06, 0.2), np.zeros(100, int), "macro"), 100, 0.95, 0.02)
    assert more.prompts is None
    assert more.seeds is not None
    assert more.seeds > 5


def test_where_prompts_decide_seeds_do_not_help() -> None:
    gaps = np.repeat(_gaps(0.01, 0.0, seeds=1), 3, axis=0) + np.random.default_rng(0).normal(0, 1e-4, (3, 100))
    more = needed(components(gaps, np.zeros(100, int), "macro"), 100, 0.95, 0.02)
    assert more.seeds is None
    assert more.prompts is not None


def test_no_difference_and_no_margin_is_never_resolved() -> None:
    gaps = np.array([[0.5, -0.5, 0.25, -0.25]])
    assert needed(components(gaps, np.zeros(4, int), "macro"), 4, 0.95, 0.0) == Needed(None, None)
    assert needed(components(gaps, np.zeros(4, int), "macro"), 4, 0.95, 0.05).prompts is not None


def test_the_present_numbers_project_to_the_present_interval() -> None:
    for gaps, nonzero in ((_gaps(0.03, 0.05), 100), (_gaps(0.03, 0.05, seeds=2), 100), (_gaps(0.01, 0.0), 100), (np.zeros((2, 30)), 0)):
        count = gaps.shape[1]
        parts = components(gaps, np.zeros(count, int), "macro")
        estimate = Difference.of(parts, nonzero).estimate(0.9)
        assert half_width(parts, nonzero, 0.9, count, len(gaps)) == pytest.approx((estimate.high - estimate.low) / 2)


def test_pareto_front() -> None:
    assert pareto_front([0.6, 0.7, 0.65, 0.7, None], [1, 5, 9, 5, 0]) == [True, True, False, True, False]
    with pytest.raises(ValueError, match="zip"):
        pareto_front([0.5], [])


@LAW
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 9)), min_size=1, max_size=12))
def test_every_point_off_the_front_is_beaten_by_one_on_it(points) -> None:
    scores, costs = zip(*points, strict=True)
    front = pareto_front(scores, costs)
    assert any(front)
    for (score, cost), on in zip(points, front, strict=True):
        better = [s >= score and c <= cost and (s, c) != (score, cost) for (s, c), kept in zip(points, front, strict=True) if kept]
        assert on != any(better)
