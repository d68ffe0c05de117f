"""Pieces of HTML: escaping, tables, figures that link to where they come from.

Whatever comes from outside (names, prompts, answers, reasons) passes `esc` or stays in JSON; nothing else may enter a page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def esc(value: object) -> str:
    """Text that is safe in content and in a quoted attribute."""
    return escape(str(value), quote=True)


def fig(text: str, key: str | None, path: str) -> str:
    """A figure as a link to the row of provenance of the stage `key`; `path` says which field it is."""
    if key is None:
        return f'<span class="fig">{esc(text)}</span>'
    return f'<a class="fig" href="#stage-{esc(key[:12])}" title="{esc(path)}">{esc(text)}</a>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, css: str = "", text_columns: int = 1, foot: Sequence[str] | None = None
) -> str:
    """A table of ready cells (HTML) that scrolls sideways by itself; columns after the first `text_columns` are figures."""

    def cells(values: Sequence[str], tag: str) -> str:
        parts = [
            f'<th scope="row">{value}</th>'
            if tag == "td" and place == 0
            else f"<{tag}{'' if place < text_columns else ' class=n'}>{value}</{tag}>"
            for place, value in enumerate(values)
        ]
        return "<tr>" + "".join(parts) + "</tr>"

    body = "".join(cells(row, "td") for row in rows)
    end = f"<tfoot>{cells(foot, 'td')}</tfoot>" if foot else ""
    return f'<div class="scroll"><table class="{css}"><thead>{cells(head, "th")}</thead><tbody>{body}</tbody>{end}</table></div>'


def section(name: str, title: str, *parts: str) -> str:
    """A section with an anchor; empty where it has no parts."""
    body = "".join(parts)
    return f'<section id="{name}"><h2>{title}</h2>{body}</section>' if body else ""


def note(text: str) -> str:
    """A paragraph that explains, in the quieter voice; `text` is HTML."""
    return f'<p class="note">{text}</p>'


def chart(name: str, height: int, said: str) -> str:
    """The place of a chart, with what it shows for those who cannot see it."""
    return f'<div class="chart" data-chart="{name}" style="height:{height}px" role="img" aria-label="{esc(said)}"></div>'


def embedded(name: str, text: str) -> str:
    """Data for the page's script, gzipped and in base64: small, and nothing in it can end the element."""
    import base64
    import gzip

    packed = base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()
    return f'<script type="application/gzip;base64" id="{name}">{packed}</script>'
