"""Rules that score an answer, one file each.

    check = find("check", "number").model_validate({"value": 42})
    check.score(item, answer)        # Outcome(value=0.0, reason="expected 42, found 41 (last number in the answer)")

`score_item` scores one answer by all checks of its item. Nothing here loads a model library, and nothing is executed:
an answer that is code is compared, never run.
"""

from campana.checks._item import parse_checks, score_item
from campana.checks._protocol import Check, Outcome

__all__ = ["Check", "Outcome", "parse_checks", "score_item"]
