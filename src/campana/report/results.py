"""The sections that answer: the sentence, the verdicts, score against cost, categories, training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from campana.report import quantity as q
from campana.report.careful import all_warnings
from campana.report.charts import UNITS, categories_height, units_of
from campana.report.forest import forest, reach_of
from campana.report.ledger import flops_spent, money_spent, time_spent
from campana.report.markup import chart, esc, fig, note, section, table
from campana.report.palette import Look

Report = Mapping[str, Any]
Looks = Mapping[str, Look]


def arm_label(arm: Mapping[str, Any], looks: Looks) -> str:
    """An arm's marker and short name."""
    return f'<span class="arm">{looks[arm["name"]].swatch()}{esc(arm["short"])}</span>'


def measure_key(report: Report) -> str | None:
    """The key of the stage that all estimates come from."""
    return next((row["key"] for row in report["provenance"] if row["kind"] == "measure"), None)


def hero(report: Report) -> str:
    """The question, the answer, and what the study is in one line of facts."""
    study = report["study"]
    facts = [f"{len(report['arms'])} arms", plural(len(study["seeds"]), "seed")]
    if report["measure"] is not None:
        categories = len(report["measure"]["categories"])
        facts.insert(0, f"{plural(report['measure']['num_items'], 'prompt')} in {plural(categories, 'category', 'categories')}")
    total = report["costs"]["total"]
    price = f", {money_spent(total, report['costs']['currency'])}" if report["costs"]["currency"] else ""
    facts.append(f"{time_spent(total)} of machine time{price}")
    careful = "".join(f"<li>{esc(warning['text'])}</li>" for warning in all_warnings(report) if warning["kind"] != "unfinished")
    careful = f'<aside class="careful"><h2>Read with care</h2><ul>{careful}</ul></aside>' if careful else ""
    sentence = report["answer"]["measured"]["sentence"]
    return (
        f'<header><p class="question">{esc(study["question"])}</p><h1>{esc(sentence)}</h1>'
        f'<p class="facts">{"".join(f"<span>{esc(fact)}</span>" for fact in facts)}</p>{_missing(report)}{careful}</header>'
    )


def _missing(report: Report) -> str:
    if not report["missing"]:
        return ""
    rows: list[str] = []
    for stage in report["missing"]:
        last = stage["measured"]["last"]
        told = f" – {esc(last['outcome'])}: {esc(last['error'] or 'no message')}" if last else ""
        rows.append(f"<li>{esc(stage['label'] or stage['kind'])}{told}</li>")
    built = len(report["provenance"]) - len(report["missing"])
    title = f"Half-way: {built} of {len(report['provenance'])} stages are built"
    missing = f"<details><summary>What is missing</summary><ul>{''.join(rows)}</ul></details>"
    return f'<aside class="careful"><h2>{title}</h2>{_so_far(report)}{missing}</aside>'


def _so_far(report: Report) -> str:
    """Scores of the arms that are whole, where others are not."""
    if report["measure"] is not None:
        return ""
    rows = [
        [esc(arm["short"]), q.score(arm["score"]["mean"]), q.interval(arm["score"]["low"], arm["score"]["high"])]
        for arm in report["arms"]
        if arm["score"] is not None
    ]
    head = ["arm", "score so far", f"{100 * report['study']['confidence']:g}% interval"]
    return table(head, rows) if rows else ""


def verdicts(report: Report, looks: Looks) -> str:
    """The table of contrasts, the primary first, each with its interval as a picture; and the arms' scores."""
    del looks
    measure = report["measure"]
    if measure is None or not report["answer"]["details"]:
        return ""
    key = measure_key(report)
    contrasts = {contrast["name"]: contrast for contrast in measure["contrasts"]}
    pairs = [pair["difference"] for detail in report["answer"]["details"] if detail["primary"] for pair in detail["pairs"]]
    reach = reach_of([*(contrast["difference"] for contrast in measure["contrasts"]), *pairs], measure["margin"])
    rows: list[list[str]] = []
    for detail in report["answer"]["details"]:
        contrast = contrasts[detail["contrast"]]
        difference, path = contrast["difference"], f"measure.json · contrasts[{detail['contrast']}]"
        tag = '<span class="tag">primary</span>' if detail["primary"] else ""
        rows.append(
            [
                f"{_side(detail['left'])} <span class=minus>−</span> {_side(detail['right'])}{tag}",
                f'<span class="verdict {contrast["verdict"].replace(" ", "-")}">{esc(contrast["verdict"])}</span>',
                fig(q.signed(difference["mean"]), key, path),
                forest(difference, reach, measure["margin"]),
                fig(q.interval(difference["low"], difference["high"]), key, path),
                fig(_p(contrast["p_adjusted"] if not detail["primary"] else contrast["p_value"]), key, path),
                esc(q.ratio(detail["measured"]["cost_ratio"])),
                esc(_needed(contrast)),
            ]
        )
        if detail["primary"]:
            rows += [_pair(pair, key, f"{path}.pairs", reach, measure["margin"]) for pair in detail["pairs"]]
    percent = f"{100 * measure['confidence']:g}%"
    head = ["contrast", "verdict", "difference", "", f"{percent} interval", "p", "tuning time", "more, to resolve it"]
    told = (
        f"The first side minus the second, on the same prompts. The band is the margin of ±{measure['margin']:g}: an interval inside it is "
        "<em>equivalent</em>. The primary contrast was named before the run; the p-values and intervals of all others are adjusted "
        "for their number; where the primary one is a mean over several pairs of arms, each pair stands below it, unadjusted. "
        "Tuning time includes the search for the learning rate."
    )
    notes = "".join(f"<li>{esc(text)}</li>" for text in measure["notes"])
    notes = f"<details><summary>Notes on the statistics</summary><ul>{notes}</ul></details>" if notes else ""
    return section("verdicts", "Verdicts", table(head, rows, css="verdicts", text_columns=2), note(told), notes)


def _side(name: str) -> str:
    """A side of a contrast: between two of them a line may break, within one it may not."""
    return f"<span class=side>{esc(name)}</span>"


def _pair(pair: Mapping[str, Any], key: str | None, path: str, reach: float, margin: float) -> list[str]:
    """The row of one pair of arms below the contrast that it is part of."""
    difference = pair["difference"]
    return [
        f'<span class="pair">at {esc(pair["where"])}</span>',
        "",
        fig(q.signed(difference["mean"]), key, path),
        forest(difference, reach, margin),
        fig(q.interval(difference["low"], difference["high"]), key, path),
        "",
        "",
        "",
    ]


def tradeoff(report: Report, looks: Looks) -> str:
    """Score against the cost of tuning, with the Pareto front; one button a unit."""
    units = units_of(report)
    scores = _scores(report, looks)
    if not scores:
        return ""
    if not units:
        return section("tradeoff", "Scores", scores)
    buttons = "".join(
        f'<button type="button" data-unit="{unit}" aria-pressed="{"true" if place == 0 else "false"}">{UNITS[unit][0]}</button>'
        for place, unit in enumerate(units)
    )
    switch = f'<div class="switch" role="group" aria-label="unit of cost" data-for="tradeoff">{buttons}</div>' if len(units) > 1 else ""
    told = note("Dotted: the Pareto front. An arm on it (large marker) is beaten in score by no arm that costs as much or less.")
    picture = chart(f"tradeoff/{units[0]}", 400, "Score of each arm against its cost of tuning, with the Pareto front")
    return section("tradeoff", "Score and cost", switch, f"{picture}", legend(report, looks), told, scores)


def _scores(report: Report, looks: Looks) -> str:
    measure = report["measure"]
    if measure is None:
        return ""
    key = measure_key(report)
    rows: list[list[str]] = []
    for arm in report["arms"]:
        charged = report["costs"]["arms"][arm["name"]]
        path = f"measure.json · arms.{arm['name']}"
        averages = [fig(q.score(arm[name]["mean"]), key, f"{path}.{name}.mean") for name in ("macro", "micro")]
        stage = arm["runs"][0]["key"] if arm["runs"] else None
        rows.append(
            [
                arm_label(arm, looks),
                f"<strong>{fig(q.score(arm['score']['mean']), key, path + '.score.mean')}</strong>",
                fig(q.interval(arm["score"]["low"], arm["score"]["high"]), key, path + ".score"),
                *averages,
                fig(time_spent(charged["making"]), stage, "manifests of the search and the runs · seconds"),
                fig(flops_spent(charged["making"]), stage, "tune.json · flops"),
                "yes" if any(arm["name"] in axis["front"] for axis in _axes(report)) else q.NONE,
            ]
        )
    head = ["arm", "score", f"{100 * measure['confidence']:g}% interval", "macro", "micro", "tuning time", "tuning FLOPs", "on the front"]
    return table(head, rows, css="scores")


def _axes(report: Report) -> list[Mapping[str, Any]]:
    pareto = report["pareto"]
    return [pareto["measured"]["seconds"]] if "seconds" in pareto["measured"] else [pareto["flops"]]


def legend(report: Report, looks: Looks) -> str:
    """All arms with their markers."""
    return f'<p class="legend">{"".join(arm_label(arm, looks) for arm in report["arms"])}</p>'


def categories(report: Report, looks: Looks) -> str:
    """Arms x categories: a table with means and intervals, and the same as a chart."""
    measure = report["measure"]
    if measure is None:
        return ""
    key = measure_key(report)
    top = max((one["mean"] or 0.0 for arm in measure["arms"].values() for one in arm["categories"].values()), default=1.0) or 1.0
    rows: list[list[str]] = []
    for category in measure["categories"]:
        name = category["name"]
        row = [esc(name), fig(q.count(category["num_items"]), key, f"measure.json · categories[{name}].num_items")]
        for arm in report["arms"]:
            estimate = measure["arms"][arm["name"]]["categories"].get(name)
            row.append(_heat(estimate, top, key, f"measure.json · arms.{arm['name']}.categories.{name}"))
        rows.append(row)
    foot = ["all", fig(q.count(measure["num_items"]), key, "measure.json · num_items")]
    foot += [_heat(measure["arms"][arm["name"]]["score"], top, key, f"measure.json · arms.{arm['name']}.score") for arm in report["arms"]]
    head = ["category", "prompts", *(arm_label(arm, looks) for arm in report["arms"])]
    told = f"Mean score, and its {100 * measure['confidence']:g}% interval below it; a stronger colour is a higher score."
    how = "the mean of the categories" if measure["average"] == "macro" else "the mean of the prompts"
    picture = chart("categories", categories_height(report), "Score and interval of each arm in each category; the table has the numbers")
    return section(
        "categories",
        "Categories",
        table(head, rows, css="heat", foot=foot),
        note(f"{told} <em>All</em> is {how}."),
        legend(report, looks),
        picture,
    )


def _heat(estimate: Mapping[str, Any] | None, top: float, key: str | None, path: str) -> str:
    if estimate is None or estimate["mean"] is None:
        return f'<span class="cell empty">{q.NONE}</span>'
    bounds = "" if estimate["low"] is None else f"<small>{estimate['low']:.2f}–{estimate['high']:.2f}</small>"
    share = max(0.0, min(1.0, estimate["mean"] / top))
    unscored = estimate.get("num_unscored") or 0
    mark = f'<small class="bad">{unscored} unscored</small>' if unscored else ""
    return f'<span class="cell" style="--v:{share:.3f}">{fig(q.score(estimate["mean"]), key, path)}{bounds}{mark}</span>'


def training(report: Report, looks: Looks) -> str:
    """Held-out and training loss, and the learning rates that were tried."""
    pictures = ""
    if report["curves"]:
        held_out = chart("validation", 320, "Held-out loss of every run against tokens seen")
        train = chart("train", 320, "Training loss of every run against tokens seen")
        pictures = (
            f'<div class="pair"><figure><figcaption>Held-out loss</figcaption>{held_out}</figure>'
            f"<figure><figcaption>Training loss</figcaption>{train}</figure></div>{legend(report, looks)}"
        )
    return section("training", "Training", pictures, _rates(report, looks), _runs(report, looks))


def _runs(report: Report, looks: Looks) -> str:
    rows: list[list[str]] = []
    for arm in report["arms"]:
        for run in arm["runs"]:
            values = [
                q.count(run["steps"]),
                q.count(run["tokens"]),
                q.count(run["supervised_tokens"]),
                q.count(run["trainable_parameters"]),
                q.learning_rate(run["learning_rate"]),
                q.score(run["final_validation_loss"]),
            ]
            names = ("steps", "tokens", "supervised_tokens", "trainable_parameters", "learning_rate", "final_validation_loss")
            cells = [fig(value, run["key"], f"tune.json · {name}") for name, value in zip(names, values, strict=True)]
            rows.append([arm_label(arm, looks), esc(run["seed"]), *cells])
    head = ["arm", "seed", "steps", "tokens", "supervised", "trainable", "learning rate", "held-out loss"]
    return f"<details><summary>Every run</summary>{table(head, rows, css='runs')}</details>" if rows else ""


def _rates(report: Report, looks: Looks) -> str:
    rows: list[list[str]] = []
    for arm in report["arms"]:
        found = arm["learning_rate"]
        if found is None or all(one["validation_loss"] is None and not one["diverged"] for one in found["candidates"]):
            continue
        tried: list[str] = []
        for one in found["candidates"]:
            loss = "diverged" if one["diverged"] else q.score(one["validation_loss"])
            text = f"{q.learning_rate(one['learning_rate'])}: {fig(loss, one['key'], 'tune.json · final_validation_loss')}"
            chosen = one["learning_rate"] == found["value"]
            tried.append(f'<span class="rate{" chosen" if chosen else ""}">{text}</span>')
        edge = '<span class="tag warn">edge of the grid</span>' if found["at_edge"] else ""
        rows.append([arm_label(arm, looks), "".join(tried) + edge])
    if not rows:
        return ""
    told = note(
        "Learning rates that were tried, with the held-out loss of the trial; every arm had the same budget. The chosen one is marked."
    )
    return "<h3>Learning-rate search</h3>" + table(["arm", "rate: held-out loss"], rows, css="rates", text_columns=2) + told


def _p(value: float | None) -> str:
    if value is None:
        return q.NONE
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _needed(contrast: Mapping[str, Any]) -> str:
    if contrast["verdict"] != "not resolved":
        return q.NONE
    needed = contrast.get("needed") or {}
    ways = [f"{plural(needed[unit], unit[:-1])}" for unit in ("prompts", "seeds") if needed.get(unit)]
    return " or ".join(ways) or q.NONE


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{q.count(number)} {one if number == 1 else many or one + 's'}"
