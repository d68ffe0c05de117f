"""A difference and its interval as a small inline picture: a dot, a line, zero, and the margin's band. No script, so it prints.

forest({"mean": -0.01, "low": -0.04, "high": 0.02}, reach=0.1, margin=0.02)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

WIDTH, HEIGHT = 130, 20


def reach_of(differences: Iterable[Mapping[str, Any]], margin: float) -> float:
    """The half width that all pictures of one table share, so that they can be compared."""
    ends = [abs(difference[end]) for difference in differences for end in ("mean", "low", "high") if difference[end] is not None]
    return 1.06 * max([*ends, 1.5 * margin, 1e-6])


def forest(difference: Mapping[str, Any], reach: float, margin: float) -> str:
    """The picture. Without an interval only the dot is drawn."""

    def x(value: float) -> float:
        return round(WIDTH / 2 * (1 + max(-1.0, min(1.0, value / reach))), 1)

    middle = HEIGHT / 2
    parts = [
        f'<rect class="band" x="{x(-margin)}" y="0" width="{round(x(margin) - x(-margin), 1)}" height="{HEIGHT}"/>',
        f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{HEIGHT}"/>',
    ]
    if difference["low"] is not None and difference["high"] is not None:
        parts.append(f'<line class="span" x1="{x(difference["low"])}" x2="{x(difference["high"])}" y1="{middle}" y2="{middle}"/>')
    if difference["mean"] is not None:
        parts.append(f'<circle class="dot" cx="{x(difference["mean"])}" cy="{middle}" r="3.6"/>')
    return f'<svg class="forest" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>'
