"""What a reader must know before trusting a figure: one sentence each, with the arms that it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from campana.report import quantity as q

CUT_SHARE = 0.05
"""Above this share of answers cut at the most tokens, a score says as much about the limit as about the model."""
DROPPED_SHARE = 0.01
"""Above this share of a data set's rows, what was dropped is told."""
FAILED_SHARE = 0.05
"""Above this share of an arm's tuning time, tries that came to nothing are told."""


def warnings(
    arms: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    missing: int,
    fairness: Mapping[str, Any],
    data: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """[{"kind", "arms", "text"}], the gravest first; arms that share a warning share its entry."""
    found: list[dict[str, Any]] = []
    if missing:
        text = "1 stage is not built; figures that need it" if missing == 1 else f"{missing} stages are not built; figures that need them"
        found.append(_of_all("unfinished", f"{text} are left out."))
    found += [_of_all("undeclared", f"The arms differ in {path}, which no factor declares.") for path in fairness["undeclared"]]
    if len(seeds) == 1 and any(arm["learning_rate"] is not None for arm in arms):
        found.append(_of_all("one_seed", "One seed only: the intervals do not tell how far another run of the same recipe would land."))
    given = [arm for arm in arms if arm["learning_rate"] is not None and not arm["learning_rate"]["searched"]]
    if given:
        text = "Learning rates were given, not searched: another rate may change who is better."
        found.append({"kind": "given_rate", "arms": [arm["name"] for arm in given], "text": text})
    found += _shared("learning_rate", [(arm, text) for arm in arms for text in (arm["learning_rate"] or {}).get("warnings", [])])
    found += _shared(
        "tuning", [(arm, text) for arm in arms for text in sorted({text for run in arm["runs"] for text in run["warnings"] or []})]
    )
    found += _dropped(data)
    cut = [arm for arm in arms if arm["num_answers"] and arm["num_cut"] > CUT_SHARE * arm["num_answers"]]
    if cut:
        told = ", ".join(f"{arm['short']} {q.percent(arm['num_cut'] / arm['num_answers'])}" for arm in cut)
        text = f"Answers cut at the most tokens allowed (arms with over {q.percent(CUT_SHARE)}): {told}."
        found.append({"kind": "cut", "arms": [arm["name"] for arm in cut], "text": text})
    unscored = [arm for arm in arms if arm["num_unscored"]]
    if unscored:
        told = ", ".join(f"{arm['short']} {arm['num_unscored']} of {arm['num_answers']}" for arm in unscored)
        text = f"Unscored answers, which count in no mean: {told}."
        found.append({"kind": "unscored", "arms": [arm["name"] for arm in unscored], "text": text})
    return found


def _dropped(data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows that the training data lost; and arms that took as many rows of a data set, but others, since they could not use the same.

    Rows are looked at until there are enough, so what was lost is a share of those; smaller and larger subsets lose other numbers.
    """
    lines: dict[str, list[str]] = {}
    kept: dict[tuple[str, int, int], set[int]] = {}
    for entry in data:
        for number, each in entry["report"]["data_sets"].items():
            name, taken = entry["names"].get(number, number), (each["used"], each["validation"])
            kept.setdefault((name, *taken), set()).add(each["kept"])
            lost = {reason: drop["count"] for reason, drop in each["dropped"].items()}
            if sum(lost.values()) > DROPPED_SHARE * (sum(taken) + sum(lost.values())):
                reasons = ", ".join(f"{count} {reason}" for reason, count in lost.items())
                were = "1 was" if sum(lost.values()) == 1 else f"{sum(lost.values())} were"
                text = f"Of the {each['read']} rows of {name}, {were} dropped: {reasons}."
                lines.setdefault(text, []).extend(entry["arms"])
    found = [{"kind": "dropped", "arms": arms, "text": text} for text, arms in lines.items()]
    names = sorted({name for (name, _, _), counts in kept.items() if len(counts) > 1})
    if names:
        text = f"Not all arms could use the same rows of {', '.join(names)}: they learn from, and are validated on, others."
        found.append(_of_all("other_rows", text))
    return found


def warnings_of_this_run(arms: Sequence[Mapping[str, Any]], costs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As `warnings`, of what another run of the study may not have: tuning times that tries which came to nothing are a part of."""
    told: list[tuple[Mapping[str, Any], str]] = []
    for arm in arms:
        making = costs["arms"][arm["name"]]["making"]
        spent = making["measured"]
        if making["complete"] and spent["failed_seconds"] > FAILED_SHARE * spent["seconds"]:
            told.append((arm, f"{arm['short']} {q.duration(spent['failed_seconds'])} of {q.duration(spent['seconds'])}"))
    if not told:
        return []
    text = f"Tuning times hold tries that failed or were killed: {', '.join(text for _, text in told)}. Ratios of times say less for it."
    return [{"kind": "failed_tries", "arms": [arm["name"] for arm, _ in told], "text": text}]


def _of_all(kind: str, text: str) -> dict[str, Any]:
    return {"kind": kind, "arms": [], "text": text}


def _shared(kind: str, told: Sequence[tuple[Mapping[str, Any], str]]) -> list[dict[str, Any]]:
    """One entry a text, with all the arms that it is about."""
    by_text: dict[str, list[Mapping[str, Any]]] = {}
    for arm, text in told:
        by_text.setdefault(text.rstrip("."), []).append(arm)
    return [
        {"kind": kind, "arms": [arm["name"] for arm in about], "text": f"{', '.join(arm['short'] for arm in about)}: {text}."}
        for text, about in by_text.items()
    ]
