"""Spans that do not cut what a person sees as one character: letters with combining marks, emoji sequences, flags, CR LF.

snap("cafe\\u0301s", 0, 4)      # (0, 5): the accent belongs to the e
"""

from __future__ import annotations

import regex

_CLUSTER = regex.compile(r"\X")
_FAR = 256


def is_plain(text: str) -> bool:
    """Whether each character of `text` is a grapheme cluster, so that no span cuts one."""
    return text.isascii() and "\r\n" not in text


def snap(text: str, start: int, end: int) -> tuple[int, int]:
    """The smallest span of whole grapheme clusters (Unicode 15 \\X) that covers `start` to `end`.

    A blank that carries a combining mark is a cluster like any other.
    """
    if start >= end or is_plain(text[max(start - 1, 0) : end + 1]):
        return start, end
    return _left(text, start), _right(text, end)


def _left(text: str, start: int) -> int:
    for match in _CLUSTER.finditer(text, _sure(text, start), min(start + _FAR, len(text))):
        if match.end() > start:
            return min(match.start(), start)
    return start


def _right(text: str, end: int) -> int:
    for match in _CLUSTER.finditer(text, _sure(text, end - 1), min(end + _FAR, len(text))):
        if match.end() >= end:
            return max(match.end(), end)
    return end


def _sure(text: str, place: int) -> int:
    """A place at or before `place` where a cluster surely begins: an ASCII or Han character, else `_FAR` characters back."""
    for index in range(place, max(place - _FAR, -1), -1):
        char = text[index]
        if (char.isascii() and char != "\n") or "\u4e00" <= char <= "\u9fff":
            return index
    return max(place - _FAR, 0)
