"""What is trained on, in memory: every question's windows, their targets, and which of them belong together. Built once a run.

    table = TrainingTable.build(examples, families, layout, settings)
    table.units("all")                    # windows that training draws, each once an epoch
    table.triples[window]                 # the counterparts of the question in that window

A window that owns the whole answer has it as its target; one that holds none of it has "no answer"; one that sees a part of the answer,
or all of it in another window's share, would teach the wrong thing and is left out and counted.

W: windows of all questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from campana.errors import DataError
from campana.reading.examples import Example, Problems, Span
from campana.reading.triples import Counterpart, Family
from campana.reading.windows import Group, group_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from campana.reading.layout import Layout
    from campana.reading.settings import Settings

Which = Literal["answerable", "balanced", "all"]
"""`answerable`: only windows that hold their answer. `all`: also those whose target is no answer; `balanced`: as many of each."""
NULL = -1


@dataclass(frozen=True, slots=True)
class Triple:
    """The counterparts that one question can be contrasted with, as windows that hold the same answer."""

    positives: tuple[int, ...]
    """Of answerable counterparts; empty where there is none."""
    negatives: tuple[int, ...]
    """Of unanswerable counterparts; at least one."""


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """Windows with targets. Positions are those in a window's row; `NULL` stands for none."""

    group: Group
    target_first: NDArray[np.int64]
    target_last: NDArray[np.int64]
    """(W,): the answer; `NULL` where the target is no answer."""
    span_first: NDArray[np.int64]
    span_last: NDArray[np.int64]
    """(W,): the answer or the plausible answer, whichever the question has; `NULL` where the window does not hold it."""
    own: NDArray[np.int64]
    """Windows of the questions that are trained on by themselves, in their order; windows left out are not among them."""
    triples: Mapping[int, Triple]
    """Window of an answerable question -> its counterparts."""
    problems: Problems
    """Questions, windows and triples that are not trained on, counted."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(W,) tokens of each row."""
        return self.group.lengths

    def units(self, which: Which) -> NDArray[np.int64]:
        """The windows that an epoch goes through. DataError where there is none."""
        found = self.own[self.target_first[self.own] != NULL] if which == "answerable" else self.own
        if not len(found):
            raise DataError("there is nothing to learn from", hint="questions need answers that stand in their passages, or is_impossible")
        return found

    @classmethod
    def build(
        cls, examples: Sequence[Example], families: Iterable[Family], layout: Layout, settings: Settings, problems: Problems | None = None
    ) -> TrainingTable:
        """The table of these questions; families bring the counterparts that they can be contrasted with.

        A family's own question must be among the examples, by its id; else it is counted and left out.
        """
        problems = Problems() if problems is None else problems
        whole = [*examples]
        pairs: list[tuple[int, list[tuple[int, bool]]]] = []
        place = {example.id: index for index, example in enumerate(examples)}
        for family in families:
            if family.id not in place:
                problems.add("counterparts of a question that is not trained on", family.id)
                continue
            others = [other for other in family.counterparts if other.used]
            pairs.append((place[family.id], [(len(whole) + index, other.answerable) for index, other in enumerate(others)]))
            whole += [family.example(other) for other in others]
        group, _ = group_of(whole, layout, settings)
        targets = _targets(group, problems, len(examples))
        own = np.nonzero(targets.kept & (group.of_example < len(examples)))[0]
        return cls(group, *targets.columns, own, _triples(group, targets, pairs, problems), problems)


@dataclass(frozen=True, eq=False)
class _Targets:
    columns: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    kept: NDArray[np.bool_]


def _targets(group: Group, problems: Problems, num_told: int) -> _Targets:
    """Targets of all windows; problems are told of the first `num_told` questions, as counterparts are counted as triples."""
    count = len(group.of_example)
    target, span = np.full((2, count), NULL, dtype=np.int64), np.full((2, count), NULL, dtype=np.int64)
    kept = np.zeros(count, dtype=bool)
    at = len(group.layout.prefix) + group.question_lengths[group.of_example] + len(group.layout.middle)
    for window in range(count):
        index = int(group.of_example[window])
        example = group.examples[index]
        told = problems if index < num_told else Problems()
        if example.answerable is None or (example.answerable and not example.spans):
            told.add("not known where the answer is (not trained on)", example.id)
            continue
        spans = example.spans if example.answerable else example.plausible
        found = _in_window(group, window, spans[0]) if spans else "absent"
        if isinstance(found, tuple):
            span[:, window] = np.array(found) - group.first[window] + at[window]
        kept[window] = not example.answerable or found != "partly"
        if example.answerable:
            target[:, window] = span[:, window]
            if found == "partly":
                told.add("window with a part of the answer (not trained on)", example.id)
    return _Targets((target[0], target[1], span[0], span[1]), kept)


def _in_window(group: Group, window: int, span: Span) -> tuple[int, int] | Literal["partly", "absent"]:
    """First and last passage token of the span where this window owns its start and holds its end."""
    covered = group.passages[int(group.of_example[window])].covering(span.start, span.end)
    if covered is None:
        return "absent"
    first, last = covered
    begin, end = int(group.first[window]), int(group.first[window] + group.count[window])
    if last < begin or first >= end:
        return "absent"
    owned = int(group.own_first[window]) <= first < int(group.own_end[window])
    return (first, last) if owned and last < end else "partly"


def _triples(group: Group, targets: _Targets, pairs: Sequence[tuple[int, list[tuple[int, bool]]]], problems: Problems) -> dict[int, Triple]:
    holder: dict[int, int] = {}
    for window in np.nonzero(targets.columns[2] != NULL)[0]:
        holder.setdefault(int(group.of_example[window]), int(window))
    found: dict[int, tuple[list[int], list[int]]] = {}
    for anchor, others in pairs:
        for other, answerable in others:
            if anchor not in holder or other not in holder:
                problems.add("triple without its span in one view (dropped)", group.examples[other].id)
                continue
            positives, negatives = found.setdefault(holder[anchor], ([], []))
            (positives if answerable else negatives).append(holder[other])
    return {window: Triple(tuple(positives), tuple(negatives)) for window, (positives, negatives) in found.items() if negatives}


def augmented(examples: Sequence[Example], families: Iterable[Family]) -> list[Example]:
    """The questions and all counterparts that training takes, as plain questions: data augmentation."""
    return [*examples, *(family.example(other) for family in families for other in _used(family))]


def _used(family: Family) -> Iterable[Counterpart]:
    return (other for other in family.counterparts if other.used)
