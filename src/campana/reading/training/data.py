"""The questions and counterparts of a training run, from its files.

    data = training_data(Path("train.jsonl"), Path("counterparts.jsonl"), "both")

Counterparts come from two places: pairs that people wrote (questions of the file that name each other) are always there to be contrasted;
made ones (`campana read edit`) are used as the run says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from campana.errors import DataError
from campana.reading.examples import Example, Problems
from campana.reading.files import load_examples
from campana.reading.training.questions import augmented
from campana.reading.triples import Family, read_families, written_families

MadeAs = Literal["contrast", "questions", "both"]
"""How made counterparts are used: contrasted with their question, trained on as plain questions, or both."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a run learns from."""

    examples: tuple[Example, ...]
    families: tuple[Family, ...]
    problems: Problems


def training_data(questions: Path, made: Path | None, made_as: MadeAs) -> TrainingData:
    """The questions of a file, with the pairs that people wrote and the made counterparts. DataError where there is no question, or no
    made counterpart belongs to any.
    """
    problems = Problems()
    examples = load_examples(questions, problems)
    families = {family.id: family for family in written_families(examples)}
    if made is None:
        return TrainingData(examples, tuple(families.values()), problems)
    known = {example.id for example in examples}
    added = [family for family in read_families(made, problems) if family.id in known]
    if not added:
        raise DataError("no counterpart here is of a question that is trained on", where=str(made), hint="make them of the same file")
    if made_as != "contrast":
        examples = tuple(augmented(examples, added))
    if made_as != "questions":
        families = _joined(families, added)
    return TrainingData(examples, tuple(families.values()), problems)


def _joined(families: dict[str, Family], added: Iterable[Family]) -> dict[str, Family]:
    joined = dict(families)
    for family in added:
        before = joined.get(family.id)
        joined[family.id] = family if before is None else replace(before, counterparts=(*before.counterparts, *family.counterparts))
    return joined


def refuse_shared(training: Iterable[Example], other: Iterable[Example], what: str) -> None:
    """DataError where documents of the training questions are among others that must be new to the reader."""
    if both := sorted({example.document for example in training} & {example.document for example in other}):
        raise DataError(
            f"{len(both)} documents are {what}, such as {both[0]!r}: the result would say nothing",
            hint="split by documents, not by questions",
        )
