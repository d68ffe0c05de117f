"""The report as plain text, for the end of `campana run` and for `campana show`: readable without colour, and in a pipe.

print(summary(report, width=100))
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from campana.report import quantity as q
from campana.report.careful import all_warnings
from campana.report.ledger import flops_spent, money_spent, time_spent

MOST_MISSING = 8


def summary(report: Mapping[str, Any], width: int = 100) -> str:
    """The answer's sentence, the arms with scores, intervals and costs, the contrasts, and what is missing or to be careful about.

    Lines are at most `width` characters, but for a table that cannot be narrower.
    """
    blocks = [textwrap.fill(report["study"]["question"], width), textwrap.fill(report["answer"]["measured"]["sentence"], width)]
    blocks.append(_table(_arm_rows(report), numbers_from=1, width=width))
    if report["answer"]["details"]:
        blocks.append(_table(_contrast_rows(report), numbers_from=1, width=width))
    if warnings := all_warnings(report):
        blocks.append("\n".join(_bullet(f"careful: {warning['text']}", width) for warning in warnings))
    if report["missing"]:
        names = [f"  missing: {stage['label']}" for stage in report["missing"][:MOST_MISSING]]
        more = len(report["missing"]) - MOST_MISSING
        blocks.append("\n".join(names + ([f"  and {more} more stages"] if more > 0 else [])))
    return "\n\n".join(blocks)


def item_text(item: Mapping[str, Any], width: int = 100) -> str:
    """One prompt with every arm's answer, score and reason."""
    lines = [f"{item['id']}  ({item['category']})", ""]
    for message in item["messages"]:
        lines += [f"{message['role']}:", _indented(message["content"], width), ""]
    if item["reference"] is not None:
        lines += ["reference:", _indented(item["reference"], width), ""]
    for arm, answers in item["answers"].items():
        for given in answers:
            seeds = "" if len(answers) == 1 else f"  seed {', '.join(str(seed) for seed in given['seeds'])}"
            score = "unscored" if given["score"] is None else q.score(given["score"])
            cut = "  (cut at the most tokens)" if given["finish"] == "length" else ""
            lines.append(f"{arm}{seeds}  {score}{cut}  {given['reason']}")
            lines += [_indented(turn, width) for turn in given["turns"]] + [""]
    return "\n".join(lines).rstrip()


def _arm_rows(report: Mapping[str, Any]) -> list[list[str]]:
    currency = report["costs"]["currency"]
    percent = f"{100 * report['study']['confidence']:g}%"
    head = ["arm", "score", f"{percent} interval", "tuning", "all costs", "FLOPs", *(["money"] if currency else [])]
    rows = [head]
    for arm in report["arms"]:
        score = arm["score"] or {}
        cost = report["costs"]["arms"][arm["name"]]
        row = [
            arm["short"],
            q.score(score.get("mean")),
            q.interval(score.get("low"), score.get("high")),
            time_spent(cost["making"]),
            time_spent(cost["total"]),
            flops_spent(cost["total"]),
        ]
        rows.append(row + ([money_spent(cost["total"], currency)] if currency else []))
    return rows


def _contrast_rows(report: Mapping[str, Any]) -> list[list[str]]:
    contrasts = {contrast["name"]: contrast for contrast in report["measure"]["contrasts"]}
    rows = [["contrast", "difference", f"{100 * report['study']['confidence']:g}% interval", "verdict", "tuning time"]]
    for detail in report["answer"]["details"]:
        contrast = contrasts[detail["contrast"]]
        difference = contrast["difference"]
        rows.append(
            [
                f"{detail['left']} - {detail['right']}" + (" (primary)" if detail["primary"] else ""),
                q.signed(difference["mean"]),
                q.interval(difference["low"], difference["high"]),
                contrast["verdict"],
                q.ratio(detail["measured"]["cost_ratio"]),
            ]
        )
        if detail["primary"]:
            rows += [
                [
                    f"  at {pair['where']}",
                    q.signed(pair["difference"]["mean"]),
                    q.interval(pair["difference"]["low"], pair["difference"]["high"]),
                    "",
                    "",
                ]
                for pair in detail["pairs"]
            ]
    return rows


def _table(rows: Sequence[Sequence[str]], numbers_from: int, width: int) -> str:
    """Columns padded to their widest cell, figures to the right; the last columns go first where the width is too small."""
    columns = len(rows[0])
    widths = [max(_cells(row[column]) for row in rows) for column in range(columns)]
    while columns > 3 and sum(widths[:columns]) + 2 * (columns - 1) > width:
        columns -= 1
    lines: list[str] = []
    for row in rows:
        cells = [
            row[column] + " " * (widths[column] - _cells(row[column]))
            if column < numbers_from
            else " " * (widths[column] - _cells(row[column])) + row[column]
            for column in range(columns)
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * widths[column] for column in range(columns)))
    return "\n".join(lines)


def _cells(text: str) -> int:
    """Columns a text takes: East Asian wide characters take two."""
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _bullet(text: str, width: int) -> str:
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="           ")


def _indented(text: str, width: int) -> str:
    lines = [textwrap.wrap(line, max(20, width - 4), replace_whitespace=False) or [""] for line in text.splitlines() or [""]]
    return "\n".join("    " + part for line in lines for part in line)
