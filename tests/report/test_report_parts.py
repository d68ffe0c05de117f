"""The pieces: costs, fairness, figures as text, looks, the terminal table."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.report import quantity as q
from campana.report import summary, without_measured
from campana.report.answer import answer
from campana.report.fairness import compare
from campana.report.forest import forest
from campana.report.ledger import flops_spent, ledger, time_spent
from campana.report.palette import looks
from campana.report.terminal import item_text

AMOUNT = st.integers(0, 10**15)
ARMS = ("a", "b", "c")


@st.composite
def lines(draw: st.DrawFn) -> list[dict]:
    found = []
    for number in range(draw(st.integers(0, 8))):
        part, kind = draw(st.sampled_from([("tuning", "tune"), ("search", "tune"), ("generation", "generate"), ("model", "model")]))
        found.append(
            {
                "key": str(number),
                "label": "",
                "kind": kind,
                "part": part,
                "arms": sorted(draw(st.sets(st.sampled_from(ARMS), min_size=1))),
                "built": draw(st.booleans()),
                **{name: draw(AMOUNT) for name in ("tokens", "supervised_tokens", "flops")},
                "measured": {
                    "seconds": draw(st.floats(0, 1e6)),
                    "failed_seconds": draw(st.floats(0, 1e3)),
                    "num_failed": draw(st.integers(0, 3)),
                },
            }
        )
    return found


@given(lines())
@settings(deadline=None, max_examples=60)
def test_arms_add_up_to_the_study(found: list[dict]) -> None:
    costs = ledger(found, ARMS, {"machine_hour": 3.6, "currency": "EUR"})
    for name in ("tokens", "supervised_tokens", "flops"):
        assert math.isclose(sum(arm["total"][name] for arm in costs["arms"].values()), costs["total"][name], rel_tol=1e-9, abs_tol=1e-6)
    for name in ("seconds", "money"):
        total = costs["total"]["measured"][name]
        assert math.isclose(sum(arm["total"]["measured"][name] for arm in costs["arms"].values()), total, rel_tol=1e-9, abs_tol=1e-9)
    for arm in costs["arms"].values():
        assert math.isclose(
            sum(part["measured"]["seconds"] for part in arm["parts"].values()), arm["total"]["measured"]["seconds"], abs_tol=1e-6
        )


def test_flops_that_a_stage_could_not_count_are_unknown_and_not_zero() -> None:
    line = {"key": "0", "label": "", "kind": "tune", "part": "tuning", "arms": ["a"], "built": True, "tokens": 5, "supervised_tokens": 3}
    costs = ledger([{**line, "flops": None, "measured": {"seconds": 1.0}}], ["a"], None)
    assert costs["arms"]["a"]["total"]["flops"] is None
    assert costs["arms"]["a"]["total"]["tokens"] == 5
    assert costs["arms"]["a"]["total"]["measured"]["money"] is None


def test_what_is_not_all_built_is_marked_and_never_a_bare_zero() -> None:
    line = {"key": "0", "label": "", "kind": "tune", "part": "tuning", "arms": ["a"], "tokens": 5, "supervised_tokens": 3, "flops": 10**12}
    done = {**line, "built": True, "measured": {"seconds": 75.0}}
    waiting = {**line, "built": False, "tokens": None, "measured": {"seconds": 0.0}}
    half, none = (ledger(found, ["a"], None)["arms"]["a"]["making"] for found in ([done, waiting], [waiting]))
    assert (time_spent(half), flops_spent(half)) == ("> 1 min 15 s", "> 1.00 TFLOP")
    assert (time_spent(none), flops_spent(none)) == (q.NONE, q.NONE)
    assert time_spent(ledger([done], ["a"], None)["total"]) == "1 min 15 s"


def fair(recipes: dict, levels: dict, declared: dict, baselines: tuple = ()) -> dict:
    return compare(recipes, levels, declared, baselines)


def test_a_difference_that_no_factor_declares_is_found() -> None:
    found = fair({"a": {"lr": 1, "epochs": 3}, "b": {"lr": 2, "epochs": 4}}, {"a": {"f": "x"}, "b": {"f": "y"}}, {"f": ["lr"]})
    assert found["undeclared"] == ["epochs"]
    assert [(one["path"], one["factor"]) for one in found["differences"]] == [("epochs", None), ("lr", "f")]


def test_arms_of_one_level_must_agree_in_its_fields() -> None:
    levels = {"a": {"f": "x", "g": "1"}, "b": {"f": "x", "g": "2"}}
    assert fair({"a": {"lr": 1}, "b": {"lr": 2}}, levels, {"f": ["lr"], "g": ["epochs"]})["undeclared"] == ["lr"]


def test_fields_below_a_declared_one_are_declared_and_absent_is_a_value() -> None:
    levels = {"a": {"f": "x"}, "b": {"f": "y"}}
    found = fair({"a": {"m.kind": "full"}, "b": {"m.kind": "lora", "m.rank": 16}}, levels, {"f": ["m"]})
    assert found["undeclared"] == []
    assert found["differences"][1] == {"path": "m.rank", "factor": "f", "values": {"b": 16}}


def test_true_is_not_one_and_baselines_are_apart() -> None:
    levels = {"a": {"f": "x"}, "b": {"f": "y"}, "base": {}}
    found = fair({"a": {"p": 1}, "b": {"p": True}, "base": {"p": 5}}, levels, {}, ("base",))
    assert found["undeclared"] == ["p"]
    assert found["baselines"] == {"base": ["p"]}


def test_measured_keys_go_at_every_depth_and_nothing_else_does() -> None:
    value = {"measured": 1, "kept": [{"measured": {"x": 1}, "y": 2}, "measured"], "z": None}
    assert without_measured(value) == {"kept": [{"y": 2}, "measured"], "z": None}
    assert value["measured"] == 1


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (q.duration(0), "0 s"),
        (q.duration(0.04), "40 ms"),
        (q.duration(59.96), "1 min 00 s"),
        (q.duration(200), "3 min 20 s"),
        (q.duration(3599.7), "1 h 00 min"),
        (q.duration(None), q.NONE),
        (q.count(9_999), "9,999"),
        (q.count(1_240_000), "1.24 M"),
        (q.flops(3.21e15), "3.21 PFLOP"),
        (q.flops(999_950_000_000_000), "1.00 PFLOP"),
        (q.flops(0), "0"),
        (q.signed(-0.0004), "0.000"),
        (q.signed(0.012), "+0.012"),
        (q.learning_rate(0.0003), "3e-4"),
        (q.learning_rate(1.5e-5), "1.5e-5"),
        (q.money(0.00313, "EUR"), "0.0031 EUR"),
        (q.money(None, None), q.NONE),
        (q.ratio(0.613), "0.61x"),
    ],
)
def test_figures_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected


def measured(verdict: str, mean: float | None, low: float | None, high: float | None, needed: dict | None = None) -> dict:
    difference = {"mean": mean, "low": low, "high": high, "standard_error": None, "degrees_of_freedom": None}
    contrast = {"name": "method: lora - full", "left": ["lora"], "right": ["full"], "primary": True, "difference": difference}
    contrast |= {"pairs": [], "p_same_in_all_pairs": None}
    contrast |= {"interval_confidence": 0.95, "verdict": verdict, "needed": needed or {"prompts": None, "seeds": None}}
    return {"confidence": 0.95, "margin": 0.02, "contrasts": [contrast]}


def said(measure: dict, flops: tuple[float, float] = (61.0, 100.0)) -> str:
    arms = [{"name": name, "short": name, "levels": {"method": name}} for name in ("lora", "full")]
    making = {"measured": {"seconds": 1.0}}
    costs = {"arms": {arm["name"]: {"making": {**making, "flops": amount}} for arm, amount in zip(arms, flops, strict=True)}}
    return answer(measure, costs, arms, (1, 1))["sentence"]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (
            measured("not resolved", -0.012, -0.040, 0.016, {"prompts": 380, "seeds": None}),
            "lora and full are not resolved: lora scores 0.012 lower (95% interval -0.040 to 0.016) at 0.61x the tuning FLOPs; "
            "about 380 more prompts would resolve it.",
        ),
        (
            measured("better", 0.031, 0.012, 0.050),
            "lora is better than full: it scores 0.031 higher (95% interval 0.012 to 0.050) at 0.61x the tuning FLOPs.",
        ),
        (
            measured("equivalent", 0.0, -0.01, 0.01),
            "lora and full are equivalent within 0.02: lora scores the same (95% interval -0.010 to 0.010) at 0.61x the tuning FLOPs.",
        ),
        (
            measured("not resolved", None, None, None),
            "lora and full are not resolved: they have no scored prompt in common.",
        ),
    ],
)
def test_the_sentence(measure: dict, expected: str) -> None:
    assert said(measure) == expected


@pytest.mark.parametrize(("p_value", "tells"), [(0.01, True), (0.2, False), (None, False)])
def test_the_sentence_tells_where_a_mean_over_arms_hides_something(p_value: float | None, tells: bool) -> None:
    measure = measured("worse", -0.06, -0.1, -0.02)
    shared = {"low": None, "high": None}
    measure["contrasts"][0] |= {
        "p_same_in_all_pairs": p_value,
        "pairs": [
            {"left": "lora", "right": "full", "levels": {"size": size}, "difference": {"mean": mean, **shared}}
            for size, mean in (("s100", -0.127), ("s300", 0.009))
        ],
    }
    assert said(measure).endswith("; not the same everywhere: -0.127 at s100, +0.009 at s300.") == tells


def test_a_side_that_was_not_tuned_gives_a_price_and_no_ratio() -> None:
    sentence = said(measured("better", 0.2, 0.1, 0.3), (2e15, 0.0))
    assert sentence.endswith("(95% interval 0.100 to 0.300) for 2.00 PFLOPs of tuning.")


def test_arms_look_different_and_a_level_keeps_its_colour() -> None:
    arms = [
        {"name": f"{method}-{size}", "levels": {"method": method, "size": size}, "baseline": False}
        for method in ("full", "lora", "dora")
        for size in ("s", "l")
    ]
    found = looks([*arms, {"name": "untuned", "levels": {}, "baseline": True}])
    assert len({(look.color, look.marker) for look in found.values()}) == 7
    assert found["full-s"].marker == found["lora-s"].marker != found["full-l"].marker
    assert found == looks([*arms, {"name": "untuned", "levels": {}, "baseline": True}])


def test_a_difference_beyond_the_picture_stays_inside_it() -> None:
    assert 'cx="130.0"' in forest({"mean": 5.0, "low": None, "high": None}, reach=0.1, margin=0.02)
    assert "circle" not in forest({"mean": None, "low": None, "high": None}, reach=0.1, margin=0.02)


def test_the_terminal_table_fits_and_lines_up(report: dict) -> None:
    for width in (60, 100):
        lines = summary(report, width).splitlines()
        assert all(len(line) <= width for line in lines)
    text = summary(report, 100)
    assert " ".join(text.split()).find(report["answer"]["measured"]["sentence"]) > 0
    rows = [line for line in text.splitlines() if line.startswith(("full ·", "lora ·", "untuned"))][: len(report["arms"])]
    assert len(rows) == len(report["arms"])
    assert len({row.index("to") for row in rows}) == 1
    assert "\x1b" not in text


def test_one_item_as_text(report: dict) -> None:
    item = report["items"][0]
    text = item_text(item, 80)
    assert item["id"] in text
    assert all(arm["name"] in text for arm in report["arms"])
    assert "seed 1" in text
