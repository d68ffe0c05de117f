"""Split the reading data without a leak: python studies/reading/make.py ../shared/data [--small] [--out DIR]

Writes build/train.jsonl (half B of SQuAD 2.0's dev set, the articles that only 1.1 has, a part of its train set, and the pairs of
UnAnsQ), build/held_out.jsonl (three articles of half B, for the threshold and the held-out loss) and build/test.jsonl (half A). With
--small: a sixteenth of the questions, in build/small, for a trial (studies/reading-small.yaml). `--out`: another folder than build.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from campana.reading.examples import Example, Problems
from campana.reading.files import load_examples, write_examples

HELD_OUT = ("Construction", "Prime_number", "Civil_disobedience")
"""Articles of half B, spread over its subjects."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder that holds squad2 and squad2_unansq")
    parser.add_argument("--small", action="store_true", help="a sixteenth of the questions, into a folder `small`")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    options = parser.parse_args()
    squad, pairs = options.data / "squad2", options.data / "squad2_unansq"
    if not squad.is_dir():
        sys.exit(f"no such folder: {squad}")
    titles = json.loads((squad / "splits.json").read_text(encoding="utf-8"))
    problems = Problems()
    dev = load_examples(squad / "dev-v2.0.json", problems)
    only_v1 = load_examples(squad / "dev-v1.1.json", problems)
    half_b = set(titles["cs224n_test_titles"])
    assert half_b >= set(HELD_OUT), "held-out articles are of half B: half A is for evaluation only"
    training = [
        *load_examples(pairs / "unansq_dev_squad2train_pairs.json", problems),
        *load_examples(pairs / "unansq_train_recovered_pairs.json", problems),
        *(example for example in dev if example.document in half_b - set(HELD_OUT)),
        *(example for example in only_v1 if example.document in set(titles["v1.1_only_titles"])),
        *load_examples(squad / "squad1.1-train-subset.json", problems),
    ]
    held_out = [example for example in dev if example.document in HELD_OUT]
    test = [example for example in dev if example.document in set(titles["cs224n_dev_titles"])]
    folder = options.out / "small" if options.small else options.out
    folder.mkdir(parents=True, exist_ok=True)
    for name, examples in {"train": distinct(training), "held_out": held_out, "test": test}.items():
        kept = [example for example in examples if not options.small or sampled(example)]
        print(f"{name}: {write_examples(folder / f'{name}.jsonl', kept):,} questions, {sum(not e.answerable for e in kept):,} unanswerable")
    print("\n".join(problems.lines()))


def distinct(examples: Iterable[Example]) -> list[Example]:
    """The first of those that share an id: the pairs come first, as both of a pair must be on one passage."""
    return list({example.id: example for example in reversed(list(examples))}.values())[::-1]


def sampled(example: Example) -> bool:
    """Whether a question is in the small data: by its pair, so that pairs stay whole."""
    name = min(example.id, example.pair_id or example.id)
    return hashlib.sha256(name.encode()).digest()[0] < 16


if __name__ == "__main__":
    main()
