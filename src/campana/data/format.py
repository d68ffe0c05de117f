"""The protocol of a data format: how one raw row becomes a conversation, or why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from campana.parts import Part
from campana.records import Conversation


class Format(Part):
    """A row format. One file in `data/formats` each."""

    def read(self, row: Mapping[str, Any], source: str) -> Conversation:
        """The conversation a raw row holds. A row that holds none raises `DroppedRow` with a reason from a short list."""
        raise NotImplementedError


class DroppedRow(Exception):  # noqa: N818  # an outcome, often passed on as a value
    """A row that cannot be used: `reason` is a short fixed name (`empty answer`, `bad role order`), counted in the data report."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
