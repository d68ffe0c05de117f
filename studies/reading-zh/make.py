"""Chinese reading data with questions that have no answer: python studies/reading-zh/make.py ../shared/data [--out DIR]

CMRC 2018 has answerable questions alone, so those without an answer are made from them by rules (`campana read edit`: a name swapped, a
number changed), at most one of a question; nobody has read them all. Writes, into build: train.jsonl (CMRC's train set) and made.jsonl
(its questions' counterparts), held_out.jsonl (120 questions of the trial set and 120 made ones) and test.jsonl (those of the dev set). The
three sets share no passage. Needs `pip install 'campana[edits]'`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from campana.parts import find
from campana.reading.edits.make import limited, make_family
from campana.reading.examples import Example, Problems
from campana.reading.files import load_examples, write_examples
from campana.reading.suite import questions_of
from campana.reading.training.questions import augmented
from campana.reading.triples import Family, write_families

OPERATORS = ("chinese_entity", "number")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="the folder that holds mrc_zh_cmrc2018")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    options = parser.parse_args()
    cmrc = options.data / "mrc_zh_cmrc2018"
    if not cmrc.is_dir():
        sys.exit(f"no such folder: {cmrc}")
    options.out.mkdir(parents=True, exist_ok=True)
    problems = Problems()
    train = load_examples(cmrc / "cmrc2018_train.json", problems)
    families = made(train, problems)
    print(f"train: {write_examples(options.out / 'train.jsonl', train):,} questions, {len(families):,} of them with a counterpart")
    write_families(options.out / "made.jsonl", families)
    for name, source, most in (("held_out", "trial", 240), ("test", "dev", None)):
        path = options.out / f"{name}.jsonl"
        examples = [example for example in load_examples(cmrc / f"cmrc2018_{source}.json", problems) if example.spans]
        write_examples(path, augmented(examples, made(examples, problems)))
        kept = questions_of(path, most)
        print(f"{name}: {write_examples(path, kept):,} questions, {sum(not example.answerable for example in kept):,} unanswerable")
    print("\n".join(problems.lines()))


def made(examples: Iterable[Example], problems: Problems) -> list[Family]:
    """The questions of which a counterpart could be made, with one."""
    operators = [find("edit", kind)() for kind in OPERATORS]
    for operator in operators:
        operator.require()
    families = (make_family(example, operators, seeds=[0], problems=problems) for example in examples)
    return [limited(family, 1, seed=0) for family in families if family is not None and family.counterparts]


if __name__ == "__main__":
    main()
