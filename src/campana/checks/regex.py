"""`regex`: the answer matches a pattern.

    {"kind": "regex", "pattern": "^\\\\d{4}-\\\\d{2}-\\\\d{2}$"}

A pattern that backtracks without end is stopped by the time limit, and the answer is then unscored: the pattern is at
fault, not the answer.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text, shown
from campana.parts import EXECUTION
from campana.records import Answer, Item


class Regex(Check):
    """The pattern is found in the answer, or is not where `absent`. Python's syntax, as the `regex` library reads it."""

    kind: Literal["regex"] = "regex"
    pattern: str
    """The pattern."""
    full: bool = False
    """True: it must match the whole answer."""
    absent: bool = False
    """True: it must not be found."""
    flags: tuple[Literal["ignore_case", "multiline", "dotall"], ...] = ()
    """How it is read."""
    timeout_seconds: Annotated[float, EXECUTION] = Field(default=2.0, gt=0)
    """The most time for one answer."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        import regex

        try:
            regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"not a pattern: {error}") from None
        return pattern

    def score(self, item: Item, answer: Answer) -> Outcome:  # noqa: ARG002 - the pattern is in the check
        """1 or 0; unscored where the pattern takes too long."""
        import regex

        known = {"ignore_case": regex.IGNORECASE, "multiline": regex.MULTILINE, "dotall": regex.DOTALL}
        flags = 0
        for name in self.flags:
            flags |= known[name]
        match = regex.fullmatch if self.full else regex.search
        text = final_text(answer)
        try:
            found = match(self.pattern, text, flags=flags, timeout=self.timeout_seconds)
        except TimeoutError:
            return Outcome(None, f"the pattern {shown(self.pattern)} took over {self.timeout_seconds:g} s: it backtracks without end")
        if found is None:
            return Outcome(float(self.absent), f"{shown(self.pattern)} {'does not match' if self.full else 'is not in'} {shown(text)}")
        return Outcome(float(not self.absent), f"{shown(self.pattern)} matches {shown(found.group())}")
