"""Made counterparts beside those that people wrote: how large the edit is, where it stands, and whether its new words are the passage's.

    campana read edit train.jsonl -o made.jsonl
    python benchmarks/edits.py ../shared/data/squad2_unansq --made made.jsonl [--out figures.json]

A pair is an answerable question and an unanswerable one that was made of it. Words are compared in lower case, punctuation apart. `changed`
is the number of words that are put in, taken out or replaced (Levenshtein); `span` the larger side of the one piece that covers them all.
Pairs of UnAnsQ that come without their passage count in sizes and places alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from campana.reading.examples import Problems
from campana.reading.files import load_examples
from campana.reading.triples import read_families, written_families

SIZES = ("0", "1", "2", "3", "4", "5", "6-8", "9+")
WORD = re.compile(r"\w+(?:n't|'\w+)?|[^\w\s]")
PLACES = 5
"""Parts of the question in which the edit may begin."""


@dataclass(frozen=True)
class Pair:
    """One edit, as words."""

    group: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    passage: frozenset[str] | None


def main() -> None:
    """Compare, print a table to stderr and one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("written", type=Path, help="the folder squad2_unansq")
    parser.add_argument("--made", type=Path, required=True, help="what `campana read edit` wrote")
    parser.add_argument("--out", type=Path, help="where the figures go as well")
    options = parser.parse_args()
    groups: dict[str, list[Pair]] = {"written by people": list(distinct(written(options.written)))}
    for pair in made(options.made):
        groups.setdefault(pair.group, []).append(pair)
    negatives = [pair for name, pairs in groups.items() if name not in ("written by people", "paraphrase") for pair in pairs]
    groups = {"written by people": groups.pop("written by people"), "made, all unanswerable": negatives, **dict(sorted(groups.items()))}
    figures = {name: described(pairs) for name, pairs in groups.items()}
    for name, found in figures.items():
        shares = " ".join(f"{found['changed_shares'][size]:4.0%}" for size in SIZES)
        words = found["new_words_in_passage"]
        told = "   –" if words is None else f"{words:4.0%}"
        sys.stderr.write(
            f"{name:24} {found['pairs']:7,}  changed median {found['changed_median']:.0f}, shares {shares}  in passage {told}\n"
        )
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"benchmark": "edits", "sizes": SIZES, "groups": figures}))


def words_of(text: str) -> tuple[str, ...]:
    """Words and marks; "was n't" and "wasn't" are the same, and so are "12 , 000" and "12,000"."""
    text = re.sub(r"(?<=\d) , (?=\d{3}\b)", ",", text.lower()).replace(" n't", "n't").replace(",", "")
    return tuple(word for word in WORD.findall(text) if word not in {"?", ".", "''", "``", '"'})


def written(folder: Path) -> Iterator[Pair]:
    """The pairs of UnAnsQ, those with passages first."""
    for name in ("unansq_dev_squad2train_pairs.json", "unansq_train_recovered_pairs.json"):
        for family in written_families(load_examples(folder / name, Problems())):
            for other in family.counterparts:
                yield Pair("written", words_of(family.question), words_of(other.question), frozenset(words_of(family.passage)))
    for name, old, new in (
        ("unansq_train_sentence_level_pairs.jsonl", "answerable_question", "unanswerable_question"),
        ("unansq_train_question_pairs.jsonl", "answerable", "unanswerable"),
    ):
        with (folder / name).open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                yield Pair("written", words_of(row[old]), words_of(row[new]), None)


def made(path: Path) -> Iterator[Pair]:
    """The counterparts of a file of families, by operator."""
    for family in read_families(path, Problems()):
        for other in family.counterparts:
            yield Pair(other.operator, words_of(family.question), words_of(other.question), frozenset(words_of(family.passage)))


def distinct(pairs: Iterable[Pair]) -> Iterable[Pair]:
    """The first of those that agree in both questions."""
    return {(pair.old, pair.new): pair for pair in reversed(list(pairs))}.values()


def described(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Sizes, places and words of the edits."""
    changed = [distance(pair.old, pair.new) for pair in pairs]
    pieces = [trimmed(pair.old, pair.new) for pair in pairs]
    spans = [max(len(old), len(new)) for _, old, new in pieces]
    places = Counter(
        min(int(PLACES * start / max(len(pair.old), 1)), PLACES - 1) for (start, _, _), pair in zip(pieces, pairs, strict=True)
    )
    new_words = [
        word in pair.passage for (_, _, new), pair in zip(pieces, pairs, strict=True) if pair.passage is not None for word in set(new)
    ]
    return {
        "pairs": len(pairs),
        "changed_median": float(np.median(changed)),
        "changed_shares": shares(changed),
        "span_median": float(np.median(spans)),
        "span_shares": shares(spans),
        "begins_in_fifth": [places[part] / len(pairs) for part in range(PLACES)],
        "longer": float(np.mean([len(pair.new) > len(pair.old) for pair in pairs])),
        "new_words_in_passage": float(np.mean(new_words)) if new_words else None,
    }


def shares(sizes: Sequence[int]) -> Mapping[str, float]:
    """The share of each class of sizes."""
    counts = Counter("9+" if size >= 9 else "6-8" if size >= 6 else str(size) for size in sizes)
    return {name: counts[name] / len(sizes) for name in SIZES}


def trimmed(old: Sequence[str], new: Sequence[str]) -> tuple[int, Sequence[str], Sequence[str]]:
    """(where it begins, old words, new words) of the one piece that covers all changes."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[len(old) - 1 - end] == new[len(new) - 1 - end]:
        end += 1
    return start, old[start : len(old) - end], new[start : len(new) - end]


def distance(old: Sequence[str], new: Sequence[str]) -> int:
    """Levenshtein's, of words."""
    before = list(range(len(new) + 1))
    for row, word in enumerate(old, 1):
        row_now = [row]
        for column, other in enumerate(new, 1):
            row_now.append(min(before[column] + 1, row_now[-1] + 1, before[column - 1] + (word != other)))
        before = row_now
    return before[-1]


if __name__ == "__main__":
    main()
