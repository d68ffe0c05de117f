"""What two runs of one study must agree on: the report without what a machine measured.

without_measured(first) == without_measured(second)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEASURED = "measured"
"""Seconds, memory, rates, money, dates, hosts, attempts: whatever a second run may change lies under a key of this name."""


def without_measured(report: Any) -> Any:
    """A copy of a report (or of any JSON value) without its `measured` keys, at every depth."""
    if isinstance(report, Mapping):
        return {key: without_measured(value) for key, value in report.items() if key != MEASURED}
    if isinstance(report, (list, tuple)):
        return [without_measured(value) for value in report]
    return report
