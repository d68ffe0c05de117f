"""The answer in sentences: who is better, by how much, how sure that is, and what it cost.

    answer(measure, costs, arms, progress)["sentence"]
    "lora and full are not resolved: lora scores 0.012 lower (95% interval -0.040 to 0.016) at 0.61x the tuning FLOPs; ..."

Each sentence exists twice: with FLOPs, which two runs share, and under `measured` with the time that this run took beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from campana.report import quantity as q

MOST_PAIRS = 4
"""Pairs of arms that a sentence names; of more, the extremes."""


def answer(
    measure: Mapping[str, Any] | None, costs: Mapping[str, Any], arms: Sequence[Mapping[str, Any]], progress: tuple[int, int]
) -> dict[str, Any]:
    """{"sentence", "details": [...], "measured": {"sentence"}}; details are all contrasts, the primary first.

    `progress` is (stages built, stages in all), for the study that has no answer yet. A detail is {"contrast", "primary", "left",
    "right", "sentence", "cost_ratio" of FLOPs or None, "pairs", "measured": {"sentence", "cost_ratio" of seconds or None}}.
    """
    built, total = progress
    if measure is None or not measure["contrasts"]:
        text = f"No answer yet: {built} of {total} stages are built."
        if measure is not None:
            text = "The study compares nothing: it has no contrast."
        return {"sentence": text, "details": [], "measured": {"sentence": text}}
    by_name = {arm["name"]: arm for arm in arms}
    contrasts = sorted(measure["contrasts"], key=lambda contrast: not contrast["primary"])
    details = [_detail(contrast, measure, costs, by_name) for contrast in contrasts]
    return {"sentence": details[0]["sentence"], "details": details, "measured": {"sentence": details[0]["measured"]["sentence"]}}


def side_names(left: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What people call two sides: the levels in which all of one side differ from all of the other, or the arms' own names."""

    def common(side: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        first = dict(side[0]["levels"])
        return {factor: level for factor, level in first.items() if all(arm["levels"].get(factor) == level for arm in side)}

    def named(side: Sequence[Mapping[str, Any]], levels: Mapping[str, str]) -> str:
        names = {arm["short"] for arm in side}
        return names.pop() if len(names) == 1 else " · ".join(levels.values()) or ", ".join(sorted(names))

    ours, theirs = common(left), common(right)
    differ = [factor for factor in ours if factor in theirs and ours[factor] != theirs[factor]]
    if differ:
        return " · ".join(ours[factor] for factor in differ), " · ".join(theirs[factor] for factor in differ)
    return named(left, ours), named(right, theirs)


def _detail(
    contrast: Mapping[str, Any], measure: Mapping[str, Any], costs: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    left, right = side_names([arms[name] for name in contrast["left"]], [arms[name] for name in contrast["right"]])
    seconds = [_making(costs, contrast[side], "seconds") for side in ("left", "right")]
    flops = [_making(costs, contrast[side], "flops") for side in ("left", "right")]
    found = _found(contrast, left, right, measure)
    needed = _needed(contrast)
    pairs = _pairs(contrast, arms)
    varies = _varies(contrast, pairs, measure["confidence"])
    told = contrast["difference"]["mean"] is not None
    by_flops, by_time = (_price(flops, "FLOPs", q.flops), _price(seconds, "time", q.duration)) if told else ("", "")
    by_both = by_flops + by_time.replace(" at ", " and ", 1) if _ratio(flops) and _ratio(seconds) else by_time
    return {
        "contrast": contrast["name"],
        "primary": contrast["primary"],
        "left": left,
        "right": right,
        "sentence": found + by_flops + needed + varies + ".",
        "cost_ratio": _ratio(flops),
        "pairs": pairs,
        "measured": {"sentence": found + by_both + needed + varies + ".", "cost_ratio": _ratio(seconds)},
    }


def _found(contrast: Mapping[str, Any], left: str, right: str, measure: Mapping[str, Any]) -> str:
    difference = contrast["difference"]
    mean = difference["mean"]
    if mean is None:
        return f"{left} and {right} are not resolved: they have no scored prompt in common"
    size = q.score(abs(mean))
    moved = "the same" if size == "0.000" else f"{size} {'higher' if mean > 0 else 'lower'}"
    bounds = ""
    if difference["low"] is not None:
        shared = " simultaneous" if contrast["interval_confidence"] > measure["confidence"] else ""
        bounds = f" ({100 * measure['confidence']:g}%{shared} interval {q.interval(difference['low'], difference['high'])})"
    if contrast["verdict"] in ("better", "worse"):
        return f"{left} is {contrast['verdict']} than {right}: it scores {moved}{bounds}"
    told = "equivalent" if contrast["verdict"] == "equivalent" else "not resolved"
    if told == "equivalent":
        told += f" within {measure['margin']:g}"
    return f"{left} and {right} are {told}: {left} scores {moved}{bounds}"


def _price(amounts: Sequence[float | None], what: str, write: Any) -> str:
    ours, theirs = amounts
    ratio = _ratio(amounts)
    if ratio is not None:
        return f" at {q.ratio(ratio)} the tuning {what}" + (" of this run" if what == "time" else "")
    if ours and theirs == 0:
        return f" for {write(ours)} of tuning" if what == "time" else f" for {write(ours)}s of tuning"
    return ""


def _needed(contrast: Mapping[str, Any]) -> str:
    if contrast["verdict"] != "not resolved":
        return ""
    needed = contrast.get("needed") or {}
    ways = [f"{needed[unit]:,} more {unit if needed[unit] != 1 else unit[:-1]}" for unit in ("prompts", "seeds") if needed.get(unit)]
    return f"; about {' or '.join(ways)} would resolve it" if ways else ""


def _pairs(contrast: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each pair of arms of a contrast of several, by what they share: {"where", "left", "right", "difference"}."""
    rows: list[dict[str, Any]] = []
    for pair in contrast["pairs"]:
        where = " · ".join(pair["levels"].values()) or f"{arms[pair['left']]['short']} - {arms[pair['right']]['short']}"
        rows.append({"where": where, "left": pair["left"], "right": pair["right"], "difference": pair["difference"]})
    return rows


def _varies(contrast: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]], confidence: float) -> str:
    """That the difference is not the same in all pairs, where it is shown not to be."""
    p_value = contrast["p_same_in_all_pairs"]
    if p_value is None or p_value >= 1 - confidence:
        return ""
    known = sorted((pair for pair in pairs if pair["difference"]["mean"] is not None), key=lambda pair: pair["difference"]["mean"])
    shown = known if len(known) <= MOST_PAIRS else [known[0], known[-1]]
    told = [f"{q.signed(pair['difference']['mean'])} at {pair['where']}" for pair in shown]
    return f"; not the same everywhere: {', '.join(told)}"


def _making(costs: Mapping[str, Any], names: Sequence[str], unit: str) -> float | None:
    """The mean cost of tuning the arms of one side, search included; an arm of which it is not known makes it unknown."""
    amounts = [costs["arms"][name]["making"] for name in names]
    values = [amount["measured"]["seconds"] if unit == "seconds" else amount[unit] for amount in amounts]
    return sum(values) / len(values) if values and None not in values else None


def _ratio(amounts: Sequence[float | None]) -> float | None:
    ours, theirs = amounts
    return ours / theirs if ours and theirs else None
