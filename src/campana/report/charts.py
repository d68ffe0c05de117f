"""The charts, as plotly figures in JSON: score against cost, categories, training curves.

A figure leaves colours of text and grid to the page, which knows whether it is light or dark; the arms' looks are `palette`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from campana.report import quantity as q
from campana.report.palette import Look

if TYPE_CHECKING:
    import plotly.graph_objects as go

UNITS: dict[str, tuple[str, str]] = {
    "seconds": ("Time", "seconds of tuning, search included"),
    "money": ("Money", "price of tuning, search included"),
    "flops": ("FLOPs", "FLOPs of tuning, search included"),
    "supervised_tokens": ("Tokens", "supervised tokens of tuning, search included"),
}
LOG_ABOVE = 40.0
"""Costs that differ by more than this factor, none of them zero, are drawn on a logarithmic axis."""
ROW, LANE = 14, 9
"""Pixels: the space between two categories, and of one arm in a category."""

Report = Mapping[str, Any]
Looks = Mapping[str, Look]


def figures(report: Report, looks: Looks) -> dict[str, Any]:
    """Chart name -> {"data", "layout"}; the chart `tradeoff` is one a unit of cost, `tradeoff/seconds`."""
    found: dict[str, go.Figure] = {}
    for unit in units_of(report):
        found[f"tradeoff/{unit}"] = _tradeoff(report, looks, unit)
    if report["measure"] is not None:
        found["categories"] = _categories(report, looks)
    if report["curves"]:
        found["validation"] = _curves(report, looks, "validation", "held-out loss")
        found["train"] = _curves(report, looks, "train", "training loss")
    return {name: figure.to_plotly_json() for name, figure in found.items()}


def units_of(report: Report) -> list[str]:
    """The units in which there is a front to draw."""
    if report["measure"] is None:
        return []
    axes = {**report["pareto"], **report["pareto"]["measured"]}
    return [unit for unit in UNITS if unit in axes and any(axes[unit]["costs"].values())]


def categories_height(report: Report) -> int:
    """Pixels that the chart of categories needs."""
    return 60 + (len(report["measure"]["categories"]) + 1) * (ROW + LANE * len(report["arms"]))


def _figure(**layout: Any) -> go.Figure:
    import plotly.graph_objects as go

    margin = {"l": 52, "r": 16, "t": 10, "b": 46}
    return go.Figure(layout={"template": "none", "margin": margin, "showlegend": False, "hoverlabel": {"align": "left"}, **layout})


def _tradeoff(report: Report, looks: Looks, unit: str) -> go.Figure:
    axis = {**report["pareto"], **report["pareto"]["measured"]}[unit]
    arms = [
        arm for arm in report["arms"] if arm["score"] and arm["score"]["mean"] is not None and axis["costs"].get(arm["name"]) is not None
    ]
    costs = [axis["costs"][arm["name"]] for arm in arms]
    log = min(costs, default=0) > 0 and max(costs) > LOG_ABOVE * min(costs)
    scale, word = _time_scale(max(costs, default=0)) if unit == "seconds" else (1.0, "")
    title = (
        UNITS[unit][1].replace("seconds", word or "seconds")
        + (f", {report['costs']['currency']}" if unit == "money" else "")
        + (" (log scale)" if log else "")
    )
    figure = _figure(
        xaxis={"title": {"text": title}, "type": "log" if log else "linear", "rangemode": "tozero", "automargin": True, "zeroline": False},
        yaxis={"title": {"text": "score"}, "automargin": True, "zeroline": False, "tickformat": ".2f"},
    )
    steps = [(axis["costs"][name] / scale, report["pareto"]["scores"][name]) for name in axis["front"]]
    line = {"color": "#9aa0a8", "width": 1.5, "dash": "dot", "shape": "hv"}
    figure.add_scatter(x=[x for x, _ in steps], y=[y for _, y in steps], mode="lines", line=line, hoverinfo="skip", meta="front")
    points = [(cost / scale, arm["score"]["mean"]) for cost, arm in zip(costs, arms, strict=True)]
    places = _label_places(points, [arm["short"] for arm in arms], steps)
    for arm, cost, place in zip(arms, costs, places, strict=True):
        look, score = looks[arm["name"]], arm["score"]
        on_front = arm["name"] in axis["front"]
        figure.add_scatter(
            x=[cost / scale],
            y=[score["mean"]],
            error_y=_error(score, look, 1.5),
            mode="markers+text",
            text=[_plain(arm["short"])],
            textposition=place,
            cliponaxis=False,
            marker={"color": look.color, "symbol": look.marker, "size": 12 if on_front else 9, "opacity": 1 if on_front else 0.75},
            hovertemplate=f"{_plain(arm['short'])}<br>score %{{y:.3f}}{_bounds(score)}<br>{_cost(unit, cost, report)}<extra></extra>",
        )
    return figure


def _categories(report: Report, looks: Looks) -> go.Figure:
    measure = report["measure"]
    names = [category["name"] for category in measure["categories"]]
    lanes = len(report["arms"])
    pitch = ROW + LANE * lanes
    figure = _figure(
        xaxis={"title": {"text": "score"}, "zeroline": False, "side": "bottom", "tickformat": ".1f", "range": [-0.02, 1.02]},
        yaxis={
            "tickvals": [-(place * pitch) for place in range(len(names) + 1)],
            "ticktext": ["<b>all</b>", *(_plain(name) for name in names)],
            "range": [-(len(names) + 0.5) * pitch, 0.5 * pitch],
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
        },
        shapes=[
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": -(place + 0.5) * pitch,
                "y1": -(place + 0.5) * pitch,
                "line": {"width": 0.6},
            }
            for place in range(len(names))
        ],
    )
    ends = [1.0]
    for lane, arm in enumerate(report["arms"]):
        look, own = looks[arm["name"]], measure["arms"][arm["name"]]
        found = [(0, "all", own["score"])]
        found += [(place, name, own["categories"][name]) for place, name in enumerate(names, 1) if name in own["categories"]]
        found = [(place, name, estimate) for place, name, estimate in found if estimate["mean"] is not None]
        ends += [estimate["high"] for _, _, estimate in found if estimate["high"] is not None]
        shift = (lane - (lanes - 1) / 2) * LANE
        figure.add_scatter(
            x=[estimate["mean"] for _, _, estimate in found],
            y=[-(place * pitch) - shift for place, _, _ in found],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [_above(estimate) for _, _, estimate in found],
                "arrayminus": [_below(estimate) for _, _, estimate in found],
                "color": look.color,
                "thickness": 1.4,
                "width": 0,
            },
            mode="markers",
            marker={"color": look.color, "symbol": look.marker, "size": 7},
            customdata=[
                f"{_plain(name)}<br>{_plain(arm['short'])} {q.score(estimate['mean'])}{_bounds(estimate)}" for _, name, estimate in found
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    return figure


def _curves(report: Report, looks: Looks, which: str, title: str) -> go.Figure:
    figure = _figure(
        xaxis={"title": {"text": "tokens seen"}, "rangemode": "tozero", "zeroline": False, "tickformat": "~s", "automargin": True},
        yaxis={"title": {"text": title}, "zeroline": False, "automargin": True},
    )
    shorts = {arm["name"]: arm["short"] for arm in report["arms"]}
    for curve in report["curves"]:
        look = looks[curve["arm"]]
        line = {"color": look.color, "width": 1.6 if which == "validation" else 1.2, "dash": look.dash}
        marker = {"color": look.color, "symbol": look.marker, "size": 6}
        figure.add_scatter(
            x=curve[which]["tokens"],
            y=curve[which]["loss"],
            mode="lines+markers" if which == "validation" else "lines",
            opacity=0.9 if which == "validation" else 0.7,
            line=line,
            marker=marker,
            hovertemplate=f"{_plain(shorts[curve['arm']])}, seed {curve['seed']}<br>%{{x:,}} tokens: %{{y:.3f}}<extra></extra>",
        )
    return figure


def _error(estimate: Mapping[str, Any], look: Look, thickness: float) -> dict[str, Any]:
    ends = {"array": [_above(estimate)], "arrayminus": [_below(estimate)]}
    return {"type": "data", "symmetric": False, **ends, "color": look.color, "thickness": thickness, "width": 0}


def _above(estimate: Mapping[str, Any]) -> float:
    return 0.0 if estimate["high"] is None else estimate["high"] - estimate["mean"]


def _below(estimate: Mapping[str, Any]) -> float:
    return 0.0 if estimate["low"] is None else estimate["mean"] - estimate["low"]


def _bounds(estimate: Mapping[str, Any]) -> str:
    return "" if estimate["low"] is None else f" ({q.interval(estimate['low'], estimate['high'])})"


def _cost(unit: str, value: float, report: Report) -> str:
    if unit == "money":
        return q.money(value, report["costs"]["currency"])
    return {"seconds": q.duration, "flops": q.flops, "supervised_tokens": q.count}[unit](value)


def _time_scale(most: float) -> tuple[float, str]:
    """Seconds of one unit of the axis, and what it is called."""
    if most <= 600:
        return 1.0, "seconds"
    return (60.0, "minutes") if most <= 7200 else (3600.0, "hours")


def _plain(text: str) -> str:
    """Text for plotly, which reads a few HTML tags: none of them from names."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _label_places(points: Sequence[tuple[float, float]], labels: Sequence[str], steps: Sequence[tuple[float, float]]) -> list[str]:
    """Where each point's label goes: it meets as few labels, points and level pieces of the front as it can, on 860 x 330 pixels."""
    if not points:
        return []
    most_x = max(x for x, _ in points) or 1.0
    low, high = min(y for _, y in points), max(y for _, y in points)

    def pixel(point: tuple[float, float]) -> tuple[float, float]:
        return 860 * point[0] / most_x, 330 * (point[1] - low) / ((high - low) or 1.0)

    dots, corners = [pixel(point) for point in points], [pixel(point) for point in steps]
    taken = [(x - 8, x + 8, y - 8, y + 8) for x, y in dots]
    taken += [(x, following, y - 2, y + 2) for (x, y), (following, _) in pairwise(corners)]
    places: list[str] = []
    for (x, y), label in zip(dots, labels, strict=True):
        width = 7.0 * len(label)
        boxes = {
            "top right": (x + 4, x + 4 + width, y + 8, y + 24),
            "bottom right": (x + 4, x + 4 + width, y - 24, y - 8),
            "top left": (x - 4 - width, x - 4, y + 8, y + 24),
            "bottom left": (x - 4 - width, x - 4, y - 24, y - 8),
            "middle right": (x + 10, x + 10 + width, y - 8, y + 8),
            "middle left": (x - 10 - width, x - 10, y - 8, y + 8),
        }

        def meets(box: tuple[float, float, float, float]) -> int:
            outside = 2 * (box[1] > 880 or box[0] < -20)
            return outside + sum(
                box[0] < right and left < box[1] and box[2] < top and bottom < box[3] for left, right, bottom, top in taken
            )

        place = min(boxes, key=lambda name: meets(boxes[name]))
        taken.append(boxes[place])
        places.append(place)
    return places
