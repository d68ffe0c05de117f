"""What a study says: one self-contained page, a table for the terminal, and the arithmetic of costs, fronts and fairness.

Plain dicts in, text or plain dicts out; `campana.outcome.gather` makes the dict (`campana.report/1`, see `schema`).

    page = render(report)
    print(summary(report, width=100))
"""

from campana.report.compare import without_measured
from campana.report.page import render
from campana.report.schema import REPORT_SCHEMA
from campana.report.terminal import summary

__all__ = ["REPORT_SCHEMA", "render", "summary", "without_measured"]
