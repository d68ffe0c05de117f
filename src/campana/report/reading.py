"""The section of a study of readers: exact match, F1 and abstention of every arm and seed, at each threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from campana.report import quantity as q
from campana.report.markup import esc, fig, note, section, table
from campana.report.results import Looks, Report, arm_label

FIGURES = {
    "has_answer_f1": "F1, has answer",
    "no_answer_accuracy": "no answer, right",
    "exact": "EM, all",
    "f1": "F1, all",
    "auroc": "AUROC",
}
NAMES = {"zero": "0", "fitted": "fitted"}
"""How thresholds are told; an oracle by its own name."""


def reading(report: Report, looks: Looks) -> str:
    """What every reader scored at the fitted threshold, with intervals; and beside it, at 0 and at the oracles."""
    if not report["reading"]:
        return ""
    arms = {arm["name"]: arm for arm in report["arms"]}
    rows: list[list[str]] = []
    others: list[list[str]] = []
    for found in report["reading"]:
        label = [arm_label(arms[found["arm"]], looks), esc(found["seed"])]
        results = {at["name"]: at for at in found["results"]}
        best = results.get("fitted", results["zero"])
        rows.append([*label, *(_cell(best, name, found["key"]) for name in FIGURES)])
        for at in found["results"]:
            cells = [_cell(at, name, found["key"]) for name in FIGURES if name != "auroc"]
            others.append([*label, esc(NAMES.get(at["name"], at["name"])), esc(f"{at['threshold']:.2f}"), *cells])
    empty = next(found["always_empty"] for found in report["reading"])
    told = note(
        "At the threshold that was fitted on held-out documents; in percent, AUROC from 0 to 1. Below each figure: its 95% interval over"
        f" passages of the suite, not over training runs. A reader that never answers has an EM of {empty:.1f}."
    )
    head = ["arm", "seed", *FIGURES.values()]
    more = ["arm", "seed", "threshold", "value", *(said for name, said in FIGURES.items() if name != "auroc")]
    all_of_them = f"<details><summary>At every threshold</summary>{table(more, others, text_columns=3)}</details>"
    return section("reading", "Reading", table(head, rows, css="heat"), told, all_of_them)


def _cell(at: Mapping[str, Any], name: str, key: str) -> str:
    figure = at["figures"].get(name)
    if figure is None:
        return q.NONE
    digits = 3 if name == "auroc" else 1
    text = fig(f"{figure['value']:.{digits}f}", key, f"reading.json · intervals.{at['name']}.{name}")
    return f'<span class="cell">{text}<small>{figure["low"]:.{digits}f}–{figure["high"]:.{digits}f}</small></span>'
