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
