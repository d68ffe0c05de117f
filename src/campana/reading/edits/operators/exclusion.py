"""Mutual exclusion: a word becomes another of its closed class, which cannot hold at the same time. "his mother" -> "his brother".

Only a word that the passage has is replaced, so that the passage speaks of it, and only by one that it has not. Opposites (largest,
smallest) need not stand in the passage, which often says them in other words.
"""

from __future__ import annotations

import re
from random import Random
from typing import Literal

from campana.reading.edits.english import with_article
from campana.reading.edits.operator import Operator, Refused
from campana.reading.examples import Example
from campana.reading.triples import Edit

_CLASSES = tuple(
    tuple(line.split())
    for line in """
north south east west
northern southern eastern western
northeast northwest southeast southwest
northeastern northwestern southeastern southwestern
black white red blue green yellow brown
spring summer autumn winter
morning afternoon evening
father mother brother sister son daughter
grandfather grandmother
husband wife
uncle aunt
brothers sisters sons daughters
men women
man woman
male female
boys girls
king queen
kings queens
prince princess
Catholic Protestant Muslim Jewish Buddhist Hindu
Catholics Protestants Muslims Jews Buddhists Hindus
Catholicism Protestantism Judaism Buddhism Hinduism
Africa Asia Europe Antarctica
African Asian European
gold silver bronze copper
iron lead tin zinc
poet painter composer architect lawyer physician
piano guitar violin trumpet
public private
civilian military
domestic foreign
liberal conservative
upper lower
urban rural
imports exports
import export
import exports
solid liquid
oxygen nitrogen helium
elementary secondary
students teachers
buyers sellers
winner loser
victory defeat
""".strip().splitlines()
)
_OPPOSITES = tuple(
    tuple(line.split())
    for line in """
largest smallest
biggest smallest
highest lowest
oldest youngest newest
longest shortest
earliest latest
tallest shortest
fastest slowest
richest poorest
strongest weakest
best worst
greatest least
most least
maximum minimum
before after
above below
larger smaller
higher lower
older newer
increase decrease
increased decreased
""".strip().splitlines()
)
_OTHERS: dict[str, tuple[str, ...]] = {}
for _words in (*_CLASSES, *_OPPOSITES):
    for _word in _words:
        _OTHERS.setdefault(_word, tuple(other for other in _words if other != _word))
_OPPOSITE = frozenset(word for words in _OPPOSITES for word in words)
_WORD = re.compile(r"(?<![\w'’-])[A-Za-z]+(?![\w-])")
_DETERMINER = re.compile(r"(?:\b(?:the|his|her|its|their|what|which)|['’]s|s['’])\s+(?:second\s+|third\s+)?$", re.IGNORECASE)
"""What stands before a superlative: "at most", "best describes" and "most simply" have none."""
_LONG = re.compile(r"\b(?:long|shortly|soon|not|no|any|year|day|ever)\s+$", re.IGNORECASE)
_TERM = re.compile(r"\s+(?:death|lineage|group|groups|taxon|taxa|city|cities|ship|hole|holes|market|box|paper|power|House|Sea|one)\b")
"""What makes a fixed term of the word before it: black death, sister group."""
_SUPERLATIVE = frozenset(word for words in _OPPOSITES for word in words if word.endswith("st"))


class Exclusion(Operator):
    """Replaces a word by another of its class, which excludes it: direction, colour, kin, religion, superlative (English)."""

    kind: Literal["exclusion"] = "exclusion"

    def edit(self, example: Example, random: Random) -> Edit | Refused:
        """One of the possible edits."""
        question = example.question
        stated = frozenset(word.lower() for word in re.findall(r"[A-Za-z]+", example.passage))
        found = [piece for piece in _WORD.finditer(question) if _key(piece.group()) and _fits(question, piece)]
        if not found:
            return Refused("no word of a closed class")
        found = [piece for piece in found if piece.group().lower() in stated or _key(piece.group()) in _OPPOSITE]
        if not found:
            return Refused("its words of closed classes do not stand in the passage")
        piece = random.choice(found)
        others = [other for other in _OTHERS[_key(piece.group())] if other.lower() not in stated]
        if not others:
            return Refused("every other word of the class stands in the passage")
        new = random.choice(others)
        start, end, new = with_article(question, piece.start(), piece.end(), new)
        return Edit(start, end, question[start:end], new)


def _key(word: str) -> str:
    """The class's form of a word; "" for none. A capital where the class has none begins a name ("White House")."""
    return word if word in _OTHERS else ""


def _fits(question: str, piece: re.Match[str]) -> bool:
    before, after = question[: piece.start()], question[piece.end() :]
    if _LONG.search(before) or _TERM.match(after) or (piece.group() in _SUPERLATIVE and not _DETERMINER.search(before)):
        return False
    if piece.group() == "most":
        return re.match(r"\s+(?!of\b|part\b|people\b)[a-z]+", after) is not None
    # A capital beside it: a part of a name, "lower Manhattan" but also "the black Forest".
    return re.match(r"\s+[A-Z]", after) is None
