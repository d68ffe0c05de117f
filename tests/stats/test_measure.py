"""`measure.json`: from folders of scores to figures, verdicts and notes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from campana.errors import DataError
from campana.records import Score, write_jsonl
from campana.stats.measure import measure

CATEGORIES = ("qa", "math", "chat")
DEFAULTS = {"average": "macro", "confidence": 0.95, "margin": 0.02, "seed": 0}


def write_scores(folder: Path, values, order=None) -> Path:
    """A check stage's folder: value None is unscored; a missing index is a prompt that was never answered."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        Score(f"item-{index:03}", CATEGORIES[index % 3], None if value is None else float(value), "no check" if value is None else "right")
        for index, value in (values.items() if isinstance(values, dict) else enumerate(values))
    ]
    write_jsonl(folder / "scores.jsonl", [rows[k] for k in order] if order is not None else rows)
    return folder


@pytest.fixture
def study(tmp_path):
    """An untuned baseline, and two methods with three seeds, on 90 prompts."""
    rng = np.random.default_rng(0)
    difficulty = rng.standard_normal(90)
    scores, arms = {}, {"untuned": ({}, ("untuned",) * 3)}
    for name, level in (
        ("untuned", -2.0),
        ("full/0", 0.5),
        ("full/1", 0.6),
        ("full/2", 0.4),
        ("lora/0", 0.5),
        ("lora/1", 0.6),
        ("lora/2", 0.55),
    ):
        right = rng.random(90) < 1 / (1 + np.exp(-(level + difficulty)))
        scores[name] = write_scores(tmp_path / name, right)
    for method in ("full", "lora"):
        arms[method] = ({"method": method}, tuple(f"{method}/{seed}" for seed in range(3)))
    contrasts = [
        ("method: lora - full", ("lora",), ("full",), True),
        ("full - untuned", ("full",), ("untuned",), False),
        ("lora - untuned", ("lora",), ("untuned",), False),
    ]
    return scores, arms, contrasts


def run(out_dir: Path, scores, arms, contrasts, **options):
    out_dir.mkdir(exist_ok=True)
    measure(scores=scores, arms=arms, contrasts=contrasts, out_dir=out_dir, **{**DEFAULTS, **options})
    return json.loads((out_dir / "measure.json").read_text())


def test_the_file_holds_arms_contrasts_and_verdicts(tmp_path, study) -> None:
    found = run(tmp_path / "out", *study)
    assert found["schema"] == "campana.measure/1"
    assert (found["num_items"], found["num_seeds"]) == (90, 3)
    assert found["categories"] == [{"name": name, "num_items": 30} for name in CATEGORIES]
    full = found["arms"]["full"]
    assert full["score"] == full["macro"]
    assert full["score"]["mean"] == pytest.approx(np.mean(full["per_seed"]))
    assert sum(full["variance"].values()) == pytest.approx(full["score"]["standard_error"] ** 2)
    assert set(full["categories"]) == set(CATEGORIES)
    assert found["arms"]["untuned"]["variance"]["seeds"] == 0
    assert len(found["arms"]["untuned"]["per_seed"]) == 3
    primary, first, second = found["contrasts"]
    assert primary["p_adjusted"] == primary["p_value"]
    assert primary["interval_confidence"] == 0.95
    assert primary["difference"]["mean"] == pytest.approx(found["arms"]["lora"]["score"]["mean"] - full["score"]["mean"])
    assert first["verdict"] == second["verdict"] == "better"
    assert first["interval_confidence"] == second["interval_confidence"] > 0.95
    assert first["p_adjusted"] >= first["p_value"]
    assert first["sentence"].startswith("full scores 0.")
    assert "95% simultaneous interval" in first["sentence"]
    assert not any("one seed" in note for note in found["notes"])


def test_the_same_scores_give_the_same_bytes_in_any_order(tmp_path, study) -> None:
    scores, arms, contrasts = study
    run(tmp_path / "one", scores, arms, contrasts)
    one = (tmp_path / "one" / "measure.json").read_bytes()
    run(tmp_path / "two", scores, arms, contrasts)
    assert (tmp_path / "two" / "measure.json").read_bytes() == one
    right = [json.loads(line)["value"] for line in (scores["full/1"] / "scores.jsonl").read_text().splitlines()]
    order = [0, 1, 2, *np.random.default_rng(0).permutation(np.arange(3, 90))]
    write_scores(tmp_path / "shuffled", right, order)
    run(tmp_path / "three", {**scores, "full/1": tmp_path / "shuffled"}, arms, contrasts)
    assert (tmp_path / "three" / "measure.json").read_bytes() == one


def test_swapped_sides_negate_the_difference(tmp_path, study) -> None:
    scores, arms, _ = study
    found = run(tmp_path / "out", scores, arms, [("a", ("lora",), ("full",), True), ("b", ("full",), ("lora",), False)])
    one, other = (contrast["difference"] for contrast in found["contrasts"])
    assert (one["mean"], one["low"], one["high"]) == (-other["mean"], -other["high"], -other["low"])


def test_an_arm_against_itself_is_exactly_equal(tmp_path, study) -> None:
    scores, arms, _ = study
    for margin in (0.02, 0.0):
        found = run(tmp_path / "out", scores, arms, [("same", ("full",), ("full",), True)], margin=margin)["contrasts"][0]
        assert (found["difference"]["mean"], found["difference"]["low"], found["difference"]["high"]) == (0, 0, 0)
        assert (found["verdict"], found["p_value"]) == ("equivalent", 1)


def test_a_repeated_input_is_no_replicate(tmp_path, study) -> None:
    scores, _, _ = study
    once = run(tmp_path / "a", scores, {"x": ({}, ("full/0",))}, [])["arms"]["x"]
    thrice = run(tmp_path / "b", scores, {"x": ({}, ("full/0",) * 3)}, [])["arms"]["x"]
    assert thrice["score"] == once["score"]
    assert thrice["variance"] == {"prompts": once["variance"]["prompts"], "seeds": 0.0, "residual": 0.0}
    assert once["variance"]["seeds"] is None


def test_one_seed_is_said_so(tmp_path, study) -> None:
    scores, _, _ = study
    found = run(tmp_path / "out", scores, {"full": ({}, ("full/0",)), "lora": ({}, ("lora/0",))}, [("c", ("lora",), ("full",), True)])
    assert "one seed only: the intervals cover the choice of prompts, not the luck of training" in found["notes"]
    assert found["contrasts"][0]["needed"]["seeds"] is None


def test_two_seeds_ruled_by_luck_are_said_so(tmp_path) -> None:
    scores = {"x/0": write_scores(tmp_path / "0", [0.2 + 0.01 * (k % 7) for k in range(60)])}
    scores["x/1"] = write_scores(tmp_path / "1", [0.6 + 0.01 * (k % 7) for k in range(60)])
    notes = run(tmp_path / "out", scores, {"x": ({}, ("x/0", "x/1"))}, [])["notes"]
    assert any(note.startswith("two seeds only") for note in notes)


def test_what_is_unscored_is_dropped_for_its_arm_and_contrast_alone_and_counted(tmp_path, study) -> None:
    scores, arms, contrasts = study
    right = [json.loads(line)["value"] for line in (scores["full/1"] / "scores.jsonl").read_text().splitlines()]
    values = {k: (None if k in (3, 4) else value) for k, value in enumerate(right) if k != 5}
    scores = {**scores, "full/1": write_scores(tmp_path / "holes", values)}
    found = run(tmp_path / "out", scores, arms, contrasts)
    assert found["arms"]["full"]["num_unscored"] == 3
    assert found["arms"]["full"]["unscored_reasons"] == {"no answer was scored": 1, "no check": 2}
    assert found["arms"]["full"]["categories"]["qa"] | {"mean": 0, "low": 0, "high": 0, "standard_error": 0, "degrees_of_freedom": 0} == {
        "mean": 0,
        "low": 0,
        "high": 0,
        "standard_error": 0,
        "degrees_of_freedom": 0,
        "num_items": 29,
        "num_unscored": 1,
    }
    assert found["arms"]["lora"]["num_unscored"] == 0
    assert [contrast["num_items"] for contrast in found["contrasts"]] == [87, 87, 90]
    assert [contrast["num_dropped"] for contrast in found["contrasts"]] == [3, 3, 0]


def test_an_arm_without_any_score_has_no_figures_and_no_verdict(tmp_path, study) -> None:
    scores, arms, _ = study
    scores = {**scores, "none": write_scores(tmp_path / "none", [None] * 90)}
    arms = {**arms, "none": ({}, ("none",) * 3)}
    found = run(tmp_path / "out", scores, arms, [("c", ("full",), ("none",), True)])
    assert found["arms"]["none"]["score"]["mean"] is None
    assert found["arms"]["none"]["per_seed"] == [None] * 3
    assert (found["contrasts"][0]["verdict"], found["contrasts"][0]["p_value"]) == ("not resolved", None)


def test_a_side_of_several_arms_is_the_mean_of_its_pairs(tmp_path, study) -> None:
    scores, _, _ = study
    arms = {name: ({}, (name,)) for name in ("full/0", "full/1", "lora/0", "lora/1")}
    contrasts = [
        ("both", ("lora/0", "lora/1"), ("full/0", "full/1"), True),
        ("first", ("lora/0",), ("full/0",), False),
        ("second", ("lora/1",), ("full/1",), False),
    ]
    both, first, second = (found["difference"]["mean"] for found in run(tmp_path / "out", scores, arms, contrasts)["contrasts"])
    assert both == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("moved", [True, False])
def test_a_difference_that_depends_on_another_factor_is_told(tmp_path, moved: bool) -> None:
    """LoRA is behind with few rows and level with many, or behind with both: the mean over sizes cannot tell."""
    rng = np.random.default_rng(1)
    gaps = {"small": 0.5, "large": 0.0 if moved else 0.5}
    scores, arms = {}, {}
    for size, gap in gaps.items():
        for method, level in (("full", 0.8), ("lora", 0.8 - gap)):
            name = f"{method}-{size}"
            scores[name] = write_scores(tmp_path / name, rng.random(180) < level)
            arms[name] = ({"method": method, "size": size}, (name,))
    contrast = ("lora - full", ("lora-small", "lora-large"), ("full-small", "full-large"), True)
    (found,) = run(tmp_path / "out", scores, arms, [contrast])["contrasts"]
    assert [pair["levels"] for pair in found["pairs"]] == [{"size": "small"}, {"size": "large"}]
    assert np.mean([pair["difference"]["mean"] for pair in found["pairs"]]) == pytest.approx(found["difference"]["mean"])
    assert found["pairs"][0]["difference"]["high"] < 0
    assert (found["p_same_in_all_pairs"] < 0.05) == moved


def test_equal_pairs_seldom_look_different(tmp_path) -> None:
    """The test of sameness holds its level: 100 studies of three sizes whose true differences are equal."""
    rng = np.random.default_rng(2)
    arms = {f"{method}-{size}": ({"method": method, "size": str(size)}, (f"{method}-{size}",)) for method in "ab" for size in range(3)}
    contrast = ("a - b", tuple(f"a-{size}" for size in range(3)), tuple(f"b-{size}" for size in range(3)), True)
    alarms = 0
    for study in range(100):
        difficulty = rng.standard_normal(90)
        scores = {name: write_scores(tmp_path / str(study) / name, rng.random(90) < 1 / (1 + np.exp(-difficulty))) for name in arms}
        (found,) = run(tmp_path / "out", scores, arms, [contrast])["contrasts"]
        alarms += found["p_same_in_all_pairs"] < 0.05
    assert alarms <= 10  # 5 expected of 100 at most; 11 or more have a chance of 1%.


@pytest.mark.parametrize(
    ("arms", "contrasts", "said"),
    [
        ({"x": ({}, ("full/0", "full/9"))}, [], "full/9"),
        ({"x": ({}, ())}, [], "without inputs"),
        ({"x": ({}, ("full/0", "full/0", "full/1"))}, [], "share their scores"),
        ({"x": ({}, ("full/0",)), "y": ({}, ("full/0", "full/1"))}, [], "different numbers of seeds"),
        ({"x": ({}, ("full/0",))}, [("c", ("x",), ("y",), True)], "no arm 'y'"),
        ({"x": ({}, ("full/0",))}, [("c", ("x", "x"), ("x",), True)], "one to one"),
    ],
)
def test_what_cannot_be_lined_up_is_refused(tmp_path, study, arms, contrasts, said) -> None:
    with pytest.raises(DataError, match=said):
        run(tmp_path / "out", study[0], arms, contrasts)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([Score("a", "qa", 0.5, ""), Score("a", "qa", 0.5, "")], "twice"),
        ([Score("a", "qa", 1.5, "")], "not a number from 0 to 1"),
        ([Score("a", "qa", float("nan"), "")], "not a number from 0 to 1"),
        ([], "no scores"),
    ],
)
def test_damaged_scores_are_refused(tmp_path, rows, said) -> None:
    write_jsonl(tmp_path / "scores.jsonl", rows)
    with pytest.raises(DataError, match=said):
        run(tmp_path / "out", {"x": tmp_path}, {"x": ({}, ("x",))}, [])


def test_a_prompt_of_two_categories_is_refused(tmp_path) -> None:
    for name, category in (("x", "qa"), ("y", "math")):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "scores.jsonl", [Score("a", category, 1.0, "")])
    with pytest.raises(DataError, match="category"):
        run(tmp_path / "out", {name: tmp_path / name for name in "xy"}, {"x": ({}, ("x",))}, [])
