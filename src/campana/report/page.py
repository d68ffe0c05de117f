"""The page: one HTML file that needs nothing else. It fetches nothing, and its own policy forbids it to.

    path.write_text(render(report), encoding="utf-8")

Texts of prompts and answers never become HTML: they are gzipped JSON, which the page's script sets as text. Charts are plotly's; its
script is inside, gzipped (1.5 MB of 4.8), and is unpacked by the browser once the text is on screen. Tables need no script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from campana.report import evidence, reading, results
from campana.report.charts import figures
from campana.report.markup import embedded, esc
from campana.report.palette import Look, looks

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
SECTIONS = {
    "verdicts": "Verdicts",
    "tradeoff": "Score and cost",
    "categories": "Categories",
    "reading": "Reading",
    "training": "Training",
    "costs": "Costs",
    "data": "Data",
    "fairness": "Fairness",
    "prompts": "Prompts",
    "provenance": "Provenance",
}


def render(report: Mapping[str, Any]) -> str:
    """The page of a report (`campana.report/1`). Sections without content are left out, and their links with them."""
    drawn = looks(report["arms"])
    sections = {
        "verdicts": results.verdicts(report, drawn),
        "tradeoff": results.tradeoff(report, drawn),
        "categories": results.categories(report, drawn),
        "reading": reading.reading(report, drawn),
        "training": results.training(report, drawn),
        "costs": evidence.costs(report, drawn),
        "data": evidence.data(report, drawn),
        "fairness": evidence.fairness(report, drawn),
        "prompts": evidence.prompts(report),
        "provenance": evidence.provenance(report),
    }
    links = "".join(f'<a href="#{name}">{SECTIONS[name]}</a>' for name, body in sections.items() if body)
    made = figures(report, drawn)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><meta name="color-scheme" content="light dark">',
        '<meta name="generator" content="campana"><link rel="icon" href="data:,">',
        f"<title>{esc(report['study']['name'])} · campana</title><style>{_asset('page.css')}</style></head><body>",
        f"<nav><div><strong>{esc(report['study']['name'])}</strong>{links}</div></nav><main>{results.hero(report)}",
        *sections.values(),
        "</main><footer>Made by campana. All numbers are in report.json.</footer>",
        embedded("page-data", json.dumps(_page_data(report, drawn, made), ensure_ascii=False)),
        _plotly() if made else "",
        f"<script>{_asset('page.js')}</script></body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _page_data(report: Mapping[str, Any], drawn: Mapping[str, Look], made: Mapping[str, Any]) -> dict[str, Any]:
    """What the script needs: the charts, the arms, the prompts with their answers."""
    arms = [{"name": arm["name"], "short": arm["short"], "color": drawn[arm["name"]].color} for arm in report["arms"]]
    return {"figures": made, "arms": arms, "items": report["items"]}


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return embedded("plotly", get_plotlyjs())


@cache
def _asset(name: str) -> str:
    return files("campana.report").joinpath("assets", name).read_text(encoding="utf-8")
