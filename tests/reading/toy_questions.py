"""Questions of a toy world, which a tiny reader learns in seconds."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from campana.reading.examples import Example, Span
from campana.reading.settings import Settings
from campana.reading.triples import Counterpart, Family

NAMES, CITIES, YEARS = ("Anna", "Ben"), ("Rome", "Paris"), ("1998", "2001")
WHOLE = Settings(max_length=128)
"""Every passage in one window."""
STUDY = """\
question: Does spanCL teach a reader to abstain?
primary: {measure: score, contrast: [objective=spancl, objective=cross_entropy]}
seeds: [0, 1]
models: {tiny: encoder}
data: {train: {path: train.jsonl}, held_out: {path: held_out.jsonl}, made: {path: made.jsonl}}
suites: {asked: {path: test.jsonl, format: reading}}
base:
  model: tiny
  read:
    train: train
    held_out: held_out
    suite: asked
    made: made
    made_as: contrast
    spans: {steps: 60, lr: 5.0e-3}
    steps: 60
    plain_steps: 10
    lr: 5.0e-3
    batch_tokens: 256
    dropout: 0
    max_length: 64
    overlap: 8
factors:
  objective:
    cross_entropy: {read.objective: cross_entropy}
    spancl: {read.objective: {kind: spancl, weight: 0.5}}
measure: {average: macro}
"""
"""Of spanCL and cross-entropy, on files that the fixture `study_folder` writes."""


def world(prefix: str = "", document: str | None = None) -> tuple[list[Example], list[Family]]:
    """Who went where: of each passage a question that it answers and one that it does not; families have the first in other words too.

    `document`: of all passages; None: each is its own.
    """
    examples: list[Example] = []
    families: list[Family] = []
    for name, city, year in product(NAMES, CITIES, YEARS):
        passage = f"{name} went to {city} in {year} ."
        at = passage.index(year)
        span = Span(at, at + len(year))
        key = f"{prefix}{name}-{city}-{year}"
        positive = Counterpart(f"{key}#p", f"in what year was {name} in {city} ?", True, span, "paraphrase")
        negative = Counterpart(f"{key}#n", f"what was {name} in {city} ?", False, span, "word")
        family = Family(key, document or key, passage, f"when was {name} in {city} ?", span, (positive, negative))
        families.append(family)
        examples += [family.original(), replace(family.example(negative), id=f"{key}-un")]
    return examples, families


def ignore(*args: object, **figures: object) -> None:
    """A progress that nobody sees."""
    del args, figures
