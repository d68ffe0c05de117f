"""Where a written answer stands in its passage: at its offset, elsewhere, or under another form of the same characters.

    locate("Rome", 99, "In Rome.")       # Located(Span(3, 7), "found again")
    locate("１９９８", 0, "In 1998.")     # Located(Span(3, 7), "found in another form")
    locate("Paris", 0, "In Rome.")       # None

Another form: full and half width, compatibility characters (NFKC), case, and runs of white space are taken as equal. The span is always
one of the passage as it stands.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from campana.reading.examples import Span

How = Literal["exact", "found again", "found in another form"]


@dataclass(frozen=True, slots=True)
class Located:
    """A span, and how it was found."""

    span: Span
    how: How


def locate(text: str, offset: int | None, passage: str) -> Located | None:
    """Where `text` stands: at `offset`, else the occurrence nearest to it (None: the first). None where it stands nowhere.

    White space around the answer is left out of the span; an answer of nothing else is None.
    """
    core = text.strip()
    if not core:
        return None
    shift = len(text) - len(text.lstrip())
    if offset is not None and offset >= 0 and passage.startswith(core, offset + shift):
        return Located(Span(offset + shift, offset + shift + len(core)), "exact")
    near = 0 if offset is None else offset
    if (start := _nearest(core, near, passage)) is not None:
        return Located(Span(start, start + len(core)), "exact" if offset is None else "found again")
    folded, origin = fold(passage)
    wanted = "".join(fold(core)[0]).strip()
    if not wanted:
        return None
    near_folded = next((index for index, place in enumerate(origin) if place >= near), len(folded))
    found = _nearest(wanted, near_folded, folded)
    if found is None:
        return None
    first, last = origin[found], origin[found + len(wanted) - 1]
    end = last + 1
    while end < len(passage) and unicodedata.combining(passage[end]):
        end += 1
    return Located(Span(first, end), "found in another form")


def _nearest(text: str, near: int, passage: str) -> int | None:
    """The start of the occurrence nearest to `near`; the earlier of two that are as near."""
    before = passage.rfind(text, 0, near + len(text)) if near >= 0 else -1
    after = passage.find(text, max(near, 0))
    if before < 0 or after < 0:
        return max(before, after) if max(before, after) >= 0 else None
    return before if near - before <= after - near else after


@lru_cache(maxsize=64)
def fold(text: str) -> tuple[str, list[int]]:
    """`text` in NFKC and case-folded, runs of white space as one space; and for each character of it, its place in `text`.

    Characters are folded with the combining marks that follow them, so that composed and decomposed letters agree.
    """
    pieces: list[str] = []
    origin: list[int] = []
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        piece = unicodedata.normalize("NFKC", text[start:end]).casefold()
        if piece.isspace():
            piece = "" if pieces and pieces[-1] == " " else " "
        if piece:
            pieces.append(piece)
            origin.extend([start] * len(piece))
        start = end
    return "".join(pieces), origin
