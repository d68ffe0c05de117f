"""Numbers and dates: a number, year, month or weekday that question and passage share becomes another, which the passage has not.

Asking for a shared one keeps counts that the question itself presupposes ("What two cities ...?") out: changing those leaves it
answerable. The form stays: thousands commas, full-width digits, ordinal endings, decades.
"""

from __future__ import annotations

import re
import unicodedata
from random import Random
from typing import Literal

from campana.reading.edits.operator import Operator, Refused
from campana.reading.examples import Example
from campana.reading.triples import Edit

_DIGITS = re.compile(
    r"(?<![0-9０-９A-Za-zÀ-ɏ_.,:/–-])[0-9０-９]+(?:,[0-9]{3})*"
    r"(?P<ending>st|nd|rd|th|s)?(?![0-9０-９A-Za-zÀ-ɏ_:/–\u0300-\u036f\ufe0f\u20e3-]|[.,][0-9０-９])"
)
_MONTHS = ("January", "March", "April", "June", "July", "August", "September", "October", "November", "December")
"""Without February, which has no 30th, and May, which is a verb too."""
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_RANKS = ("first", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
"""Without second, which is a time too."""
_CLASSES = (_MONTHS, _WEEKDAYS, _COUNTS, _RANKS)
_CLASS_OF = {word: words for words in _CLASSES for word in words}
_WORDS = re.compile(rf"(?<![\w'’-])(?:{'|'.join(_CLASS_OF)})(?![\w'’\u0300-\u036f-])")
_DETERMINER = re.compile(r"(?:\b(?:the|his|her|its|their|our|my|your)|['’]s|s['’])\s+$", re.IGNORECASE)
_LAST_YEAR = 2020
_MOST_STEPS = 50
"""How far a count moves, in units of its last digit that is not 0: 2,500 becomes 1,300 to 3,700."""


class Number(Operator):
    """Replaces a number, year, month or weekday that the passage has by one that it has not (English and Chinese)."""

    kind: Literal["number"] = "number"

    def edit(self, example: Example, random: Random) -> Edit | Refused:
        """One of the possible edits."""
        question, passage = example.question, example.passage
        found = [*_DIGITS.finditer(question), *_WORDS.finditer(question)]
        if not found:
            return Refused("no number or date")
        stated = _stated(passage)
        shared = [piece for piece in found if _plain(piece.group()) in stated and not _adverb(question, piece)]
        if not shared:
            return Refused("its numbers do not stand in the passage, or are adverbs")
        piece = random.choice(shared)
        old = piece.group()
        after = unicodedata.normalize("NFKC", question[piece.end() : piece.end() + 1])
        others = _word_others(old) if old in _CLASS_OF else _digit_others(old, piece["ending"] or "", after)
        others = [other for other in others if _plain(other) not in stated]
        if not others:
            return Refused("every other number stands in the passage")
        return Edit(piece.start(), piece.end(), old, random.choice(others))


def _adverb(question: str, piece: re.Match[str]) -> bool:
    """`first` without a determiner: "When was it first used?" has no "fifth used"."""
    return piece.group() in _RANKS and _DETERMINER.search(question[: piece.start()]) is None


def _plain(text: str) -> str:
    return re.sub(r"(?<=\d)(?:st|nd|rd|th|s)$", "", unicodedata.normalize("NFKC", text).replace(",", "").casefold())


def _stated(passage: str) -> frozenset[str]:
    digits = re.findall(r"[0-9０-９]+(?:,[0-9]{3})*", passage)
    words = re.findall(r"[A-Za-z]+", passage)
    return frozenset(_plain(text) for text in (*digits, *words))


def _word_others(old: str) -> list[str]:
    return [word for word in _CLASS_OF[old] if word != old]


def _digit_others(old: str, ending: str, after: str) -> list[str]:
    body = old[: len(old) - len(ending)]
    plain = _plain(body)
    value = int(plain) if len(plain) < 16 else 0
    if value == 0 or plain[0] == "0" or (ending and _ordinal(value) != ending and ending != "s"):
        return []
    others = [other for other in _near(value, ending, after) if other != value and len(str(other)) == len(plain)]
    return [_like(body, other) + (ending if ending in {"", "s"} else _ordinal(other)) for other in others]


def _near(value: int, ending: str, after: str) -> list[int]:
    """Values of the same kind: day with day, year with year, and a count within half of itself."""
    if ending == "s":
        return [value + 10 * step for step in range(-4, 5) if value + 10 * step <= _LAST_YEAR]
    if 1000 <= value <= _LAST_YEAR:
        return [year for year in range(value - 20, value + 21) if year <= _LAST_YEAR]
    if value <= 12:
        return list(range(2, 13))
    if value <= 31:
        return list(range(10, 13 if after == "月" else 29))
    step = 10 ** (len(str(value)) - len(str(value).rstrip("0")))
    most = min(value // (2 * step), _MOST_STEPS)
    return [value + step * move for move in range(-most, most + 1)]


def _ordinal(value: int) -> str:
    if value % 100 in {11, 12, 13}:
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")


def _like(old: str, value: int) -> str:
    text = f"{value:,}" if "," in old else str(value)
    return "".join(chr(ord(digit) + 0xFEE0) for digit in text) if old[0] >= "０" else text
