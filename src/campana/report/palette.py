"""One look per arm, the same in every chart, table and card: a colour, a marker and a dash.

The colour is the level of the first factor, the marker, tint and dash are those of all other factors together, so that a page of
two factors reads at a glance; arms beside the product are grey. No two arms share both colour and marker until 54 arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HUES = ("#3a6fb5", "#d97a29", "#2c9c78", "#9a5cb4", "#c4475f", "#3f9fc4", "#b8941f", "#7a6a55", "#6f7bd4")
GREY = "#868c95"
MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
DASHES = ("solid", "dot", "dash", "dashdot", "longdash", "longdashdot")
_PATHS = {
    "circle": "M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9z",
    "square": "M2 2h8v8h-8z",
    "diamond": "M6 .8l5.2 5.2-5.2 5.2-5.2-5.2z",
    "triangle-up": "M6 1.2l5 9h-10z",
    "triangle-down": "M6 10.8l5-9h-10z",
    "cross": "M4.2 1h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
}


@dataclass(frozen=True)
class Look:
    """How an arm is drawn."""

    color: str
    marker: str
    dash: str

    def swatch(self) -> str:
        """The marker as inline SVG, for text."""
        return f'<svg class="swatch" viewBox="0 0 12 12" aria-hidden="true"><path fill="{self.color}" d="{_PATHS[self.marker]}"/></svg>'


def looks(arms: Sequence[Mapping[str, Any]]) -> dict[str, Look]:
    """Arm -> its look, in the order of the report's arms."""
    hues: dict[str, int] = {}
    shapes: dict[tuple[str, ...], int] = {}
    found: dict[str, Look] = {}
    num_baselines = 0
    for arm in arms:
        levels = list(arm["levels"].values())
        if arm["baseline"] or not levels:
            found[arm["name"]] = Look(GREY, MARKERS[num_baselines % len(MARKERS)], DASHES[num_baselines % len(DASHES)])
            num_baselines += 1
            continue
        hue = hues.setdefault(levels[0], len(hues))
        shape = shapes.setdefault(tuple(levels[1:]), len(shapes)) + hue // len(HUES)
        color = _tinted(HUES[hue % len(HUES)], min(shape, 3) * 0.14)
        found[arm["name"]] = Look(color, MARKERS[shape % len(MARKERS)], DASHES[shape % len(DASHES)])
    return found


def _tinted(color: str, share: float) -> str:
    parts = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in parts)
