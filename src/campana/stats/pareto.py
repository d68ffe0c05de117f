"""The Pareto front of score against cost: the arms that no other arm beats at both.

pareto_front(scores=[0.6, 0.7, 0.65], costs=[1, 5, 9])    # [True, True, False]
"""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(scores: Sequence[float | None], costs: Sequence[float | None]) -> list[bool]:
    """Which points are on the front: no other has at least the score at no more cost and is better in one of the two.

    Higher scores and lower costs are better. Equal points are on the front together; a point with a missing coordinate never is.
    Raises ValueError where the lengths differ.
    """
    points = list(zip(scores, costs, strict=True))
    known = [(score, cost) for score, cost in points if score is not None and cost is not None]

    def beaten(score: float, cost: float) -> bool:
        return any(s >= score and c <= cost and (s > score or c < cost) for s, c in known)

    return [score is not None and cost is not None and not beaten(score, cost) for score, cost in points]
