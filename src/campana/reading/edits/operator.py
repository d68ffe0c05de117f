"""The protocol of an edit operator: one replaced piece of a question, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from campana.parts import Part
from campana.reading.examples import Example
from campana.reading.triples import Edit


@dataclass(frozen=True, slots=True)
class Refused:
    """An edit that cannot be made. Reasons are few and fixed, so that they can be counted."""

    reason: str


class Operator(Part):
    """A way to edit a question. One file in `reading/edits/operators` each."""

    answerable: ClassVar[bool] = False
    """Whether the edited question keeps its answer."""

    def require(self) -> None:
        """UserError, with what to install, where something that the operator needs is absent."""

    def edit(self, example: Example, random: Random) -> Edit | Refused:
        """The edit; `example.question[edit.start:edit.end] == edit.old` (empty for an insertion). All choices come from `random`.

        The question is answerable, and its first span is the answer.
        """
        raise NotImplementedError
