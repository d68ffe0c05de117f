"""EM, F1, thresholds and probabilities: the official figures, and the cases that official scripts get wrong."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from campana.reading.calibration import (
    Quality,
    auroc,
    calibration_from_dict,
    fit_calibration,
    fit_isotonic,
    fit_temperature,
    quality,
    risk_coverage,
)
from campana.reading.examples import Example, of_documents
from campana.reading.files import load_examples, read_predictions
from campana.reading.scoring import f1, score_predictions, score_texts, style_of, summary
from campana.reading.threshold import Threshold, best_threshold, fit, smoothed_threshold

DATA = Path(__file__).parents[3] / "shared" / "data" / "squad2"


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is absent")
def test_the_official_figures_of_a_published_system() -> None:
    examples = load_examples(DATA / "dev-v2.0.json")
    splits = json.loads((DATA / "splits.json").read_text())
    said = read_predictions(DATA / "predictions" / "bert_single_v2.0.json")
    everything, missing = score_predictions(examples, said, "squad")
    scores = summary(everything)
    assert not missing
    assert (scores.num_questions, scores.num_has_answer, scores.num_no_answer) == (11_873, 5_928, 5_945)
    assert (round(scores.exact or 0, 3), round(scores.f1 or 0, 3)) == (78.742, 81.775)
    assert (round(scores.has_answer_exact or 0, 3), round(scores.has_answer_f1 or 0, 3)) == (74.106, 80.182)
    assert round(scores.no_answer_accuracy or 0, 3) == 83.364
    assert round(scores.always_empty_exact or 0, 2) == 50.07
    for half, expected in (("cs224n_dev_titles", (78.973, 81.826)), ("cs224n_test_titles", (78.499, 81.722))):
        part = summary(score_predictions(of_documents(examples, splits[half]), said, "squad")[0])
        assert (round(part.exact or 0, 3), round(part.f1 or 0, 3)) == expected


@pytest.mark.parametrize(
    ("said", "golds", "expected"),
    [
        ("The Rome.", ("rome",), (1.0, 1.0)),
        ("city of Rome", ("Rome", "the city"), (0.0, 0.5)),
        ("", (), (1.0, 1.0)),
        ("Rome", (), (0.0, 0.0)),
        ("the", (), (1.0, 1.0)),
        ("", ("Rome",), (0.0, 0.0)),
        ("Rome", ("the", "Rome"), (1.0, 1.0)),
        ("Rome Rome", ("Rome",), (0.0, 2 / 3)),
    ],
)
def test_squad_scores(said: str, golds: tuple[str, ...], expected: tuple[float, float]) -> None:
    assert score_texts(said, golds, "squad") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("said", "gold", "expected"),
    [
        ("北京。", "北京", (1.0, 1.0)),
        ("在北京市", "北京", (0.0, 2 * (2 / 4) * 1 / (2 / 4 + 1))),
        ("１９９８年", "1998年", (1.0, 1.0)),
        ("《战国无双3》", "战国无双3", (1.0, 1.0)),
        ("京北", "北京", (0.0, 0.5)),
        ("iPhone手机", "iphone", (0.0, 2 * (1 / 3) / (4 / 3))),
        ("", "北京", (0.0, 0.0)),
    ],
)
def test_chinese_scores(said: str, gold: str, expected: tuple[float, float]) -> None:
    assert score_texts(said, (gold,), "cmrc") == pytest.approx(expected)


def test_the_style_follows_the_passages() -> None:
    assert style_of([Example("1", "?", "战国无双系列的正统第三续作")]) == "cmrc"
    assert style_of([Example("1", "?", "The third of the series, 战国.  And some more words in English")]) == "squad"


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(["squad", "cmrc"]))
@settings(deadline=None)
def test_f1_is_symmetric_and_1_for_itself(left: str, right: str, style: str) -> None:
    assert f1(left, right, style) == pytest.approx(f1(right, left, style))  # type: ignore[arg-type]
    assert f1(left, left, style) == 1.0  # type: ignore[arg-type]
    assert 0.0 <= f1(left, right, style) <= 1.0  # type: ignore[arg-type]


def test_missing_predictions_are_not_scored_but_named() -> None:
    examples = [Example("1", "?", "p", answerable=False), Example("2", "?", "p", answerable=False), Example("3", "?", "p")]
    rows, missing = score_predictions(examples, {"1": ""}, "squad")
    assert ([row.id for row in rows], missing) == (["1"], ["2"])
    assert summary([]).exact is None


worths = st.sampled_from([0.0, 0.2, 0.25, 1 / 3, 0.5, 2 / 3, 0.8, 1.0])
"""What F1 can be for short answers: two sums of them are equal or clearly apart."""
cases = st.lists(st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0, float("inf")]), worths, st.booleans()), min_size=1, max_size=12)


@settings(deadline=None, max_examples=200)
@given(cases)
def test_the_best_threshold_is_the_best_of_all_and_can_be_reached(rows: list[tuple[float, float, bool]]) -> None:
    margins, worth, has = (np.array(column) for column in zip(*rows, strict=True))
    answered, empty = np.where(has, worth, 0.0), np.where(has, 0.0, 1.0)
    value, reached = best_threshold(margins, answered, empty)

    def score(threshold: float) -> float:
        return float(np.where(margins <= threshold, answered, empty).mean())

    assert np.isfinite(value)
    assert score(value) == pytest.approx(reached)
    everywhere = [score(t) for t in (-9, -2, -1.5, -1, -0.5, 0, 0.2, 0.5, 1, 3, 9)]
    assert reached == pytest.approx(max(everywhere))
    if score(0.0) == pytest.approx(reached):
        assert value == 0.0


def test_questions_of_one_margin_are_decided_together() -> None:
    """The official search takes them one by one and reports 100 here."""
    _, reached = best_threshold(np.array([1.0, 1.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert reached == 0.5


def test_a_threshold_keeps_its_documents() -> None:
    made = fit(np.array([-1.0, 2.0]), np.array([1.0, 0.0]), np.array([0.0, 1.0]), ["b", "a", "b"], "exact")
    assert made == Threshold(pytest.approx(0.5, abs=0.05), ("a", "b"), 2, "exact", 100.0)
    assert Threshold.from_dict(json.loads(json.dumps(made.as_dict()))) == made


def questions(random: np.random.Generator, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Margins, and what a weak reader gains by an answer and by none: it pays to answer below -1."""
    margins = random.normal(-0.5, 3.0, count)
    has = random.random(count) < 1 / (1 + np.exp((margins + 1.0) / 2.0))
    return margins, np.where(has, random.choice([0.0, 1.0, 1.0, 1.0], count), 0.0), np.where(has, 0.0, 1.0)


def test_a_smoothed_threshold_is_nearer_to_the_best_of_all_questions_than_the_highest_step() -> None:
    """What it costs to have fitted on 500 of them, over 60 draws: both the mean and the spread of thresholds."""
    best, _ = best_threshold(*questions(np.random.default_rng(99), 400_000))
    random = np.random.default_rng(0)
    draws = [questions(random, 500) for _ in range(60)]
    steps, smooth = np.array([(best_threshold(*draw)[0], smoothed_threshold(*draw)) for draw in draws]).T
    assert np.abs(smooth - best).mean() < 0.8 * np.abs(steps - best).mean()
    assert abs(smooth.mean() - best) < 0.25


@settings(deadline=None, max_examples=100)
@given(cases)
def test_a_smoothed_threshold_is_a_threshold(rows: list[tuple[float, float, bool]]) -> None:
    margins, worth, has = (np.array(column) for column in zip(*rows, strict=True))
    answered, empty = np.where(has, worth, 0.0), np.where(has, 0.0, 1.0)
    found = smoothed_threshold(margins, answered, empty)
    assert np.isfinite(found)
    shifted = smoothed_threshold(margins * 3.0, answered, empty)  # margins of three times the size: a threshold of three times the size
    chosen = [np.where(scaled <= t, answered, empty).mean() for scaled, t in ((margins, found), (margins * 3.0, shifted))]
    assert chosen[0] == pytest.approx(chosen[1])


def test_a_reader_that_is_always_right_or_always_wrong_answers_all_or_nothing() -> None:
    margins = np.linspace(-5.0, 5.0, 50)
    assert smoothed_threshold(margins, np.ones(50), np.zeros(50)) > margins.max()
    assert smoothed_threshold(margins, np.zeros(50), np.ones(50)) < margins.min()


def test_calibration_finds_the_probability_that_made_the_data() -> None:
    random = np.random.default_rng(0)
    margins = random.normal(0, 4, 20_000)
    truth = 1 / (1 + np.exp(-(margins - 1.5) / 2.0))
    answerable = random.random(20_000) > truth
    found = fit_temperature(margins, answerable)
    assert (found.temperature, found.offset) == pytest.approx((2.0, 1.5), abs=0.15)
    for calibration in (found, fit_isotonic(margins, answerable)):
        said = calibration.p_no_answer(margins)
        assert np.abs(said - truth).mean() < 0.02
        assert quality(said, answerable).calibration_error < 0.02
        again = calibration_from_dict(json.loads(json.dumps(calibration.as_dict())))
        np.testing.assert_array_equal(again.p_no_answer(margins), said)
        assert (np.diff(calibration.p_no_answer(np.sort(margins))) >= 0).all()
        assert calibration.p_no_answer(np.array([np.inf]))[0] == 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.booleans()), max_size=60), st.randoms())
def test_the_calibration_error_of_equal_probabilities_does_not_depend_on_their_order(
    rows: list[tuple[float, bool]], random: Random
) -> None:
    def found() -> Quality:
        return quality(np.array([said for said, _ in rows]), np.array([has for _, has in rows], dtype=bool))

    in_order = found()
    shares = {said: [not has for other, has in rows if other == said] for said, _ in rows}
    by_hand = sum(abs(said * len(was) - sum(was)) for said, was in shares.items()) / max(len(rows), 1)
    assert len(in_order.bins) <= len(shares)
    assert len(in_order.bins) < len(shares) or in_order.calibration_error == pytest.approx(by_hand)
    random.shuffle(rows)
    assert (found().bins, found().calibration_error) == (in_order.bins, in_order.calibration_error)


def test_calibration_of_separated_or_one_sided_questions() -> None:
    margins = np.array([-3.0, -2.0, 2.0, 3.0, np.inf])
    found = fit_calibration("temperature", margins, np.array([True, True, False, False, False]))
    assert found is not None
    assert 0 < found.p_no_answer(np.array([-3.0]))[0] < 0.5 < found.p_no_answer(np.array([3.0]))[0] < 1
    assert fit_calibration("isotonic", margins, np.ones(5, dtype=bool)) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, 3.0]), st.booleans()), min_size=1, max_size=20))
def test_auroc_is_the_share_of_pairs_in_order(rows: list[tuple[float, bool]]) -> None:
    scores, positive = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    got = auroc(scores, positive)
    assert (got is None) == (not pairs)
    if got is not None:
        assert got == pytest.approx(np.mean(pairs))


def test_risk_falls_with_coverage_for_a_good_margin() -> None:
    curve = risk_coverage(np.array([-2.0, -1.0, -1.0, 5.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert curve.coverage == (0.25, 0.75, 1.0)
    assert curve.risk == pytest.approx((0.0, 1 / 3, 0.5))
    assert curve.area == pytest.approx(0.5 / 3 + 0.5 * 0.25)
