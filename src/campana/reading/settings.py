"""How a reader reads: sizes of windows, the longest answer, how windows are combined. Stored with the model; values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from campana.errors import ModelError

Combine = Literal["margin", "lowest-null", "mean-null", "highest-null"]
COMBINES: tuple[str, ...] = get_args(Combine)


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a reader."""

    max_length: int = 384
    """Tokens of a window: special tokens, question and passage."""
    overlap: int = 128
    """Passage tokens that two neighbouring windows share."""
    max_question_tokens: int = 64
    """A longer question is cut, and the answer says so. A question never takes more than half of a window."""
    max_answer_tokens: int = 30
    """The longest answer."""
    num_best: int = 20
    """Spans kept a window and a question."""
    combine: Combine = "margin"
    """How the windows of a passage decide together; see `combine`."""

    def __post_init__(self) -> None:
        for name in ("max_length", "max_question_tokens", "max_answer_tokens", "num_best"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} is {getattr(self, name)}; it is at least 1")
        if self.overlap < 0:
            raise ModelError(f"overlap is {self.overlap}; it is at least 0")
        if self.combine not in COMBINES:
            raise ModelError(f"no way to combine windows is called {self.combine!r}", hint=f"known: {', '.join(COMBINES)}")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Settings:
        """What `as_dict` gave. A field of another version of campana is an error."""
        if unknown := set(stored) - {field.name for field in fields(cls)}:
            raise ModelError(f"unknown reader settings: {', '.join(sorted(unknown))}", hint="was it written by a newer campana?")
        return cls(**stored)
