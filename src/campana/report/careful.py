"""What a reader must know before trusting a figure, of the study and of this run of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def all_warnings(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """[{"kind", "arms", "text"}], those that any run of the study has first."""
    return [*report["warnings"], *report["measured"]["warnings"]]
