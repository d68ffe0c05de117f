"""Why a stage is built or not: what the plan says of it, and every field in which it differs from the nearest stored stage.

told = why(stage, store)
told.differences   # (Difference('learning_rate.value', 0.0001, 0.0003),)
"""

from __future__ import annotations

from dataclasses import dataclass

from campana.core.graph import in_order
from campana.core.index import Index
from campana.core.keys import Difference, recipe
from campana.core.plan import State, make_plan
from campana.core.reasons import MOST_COMPARED, Nearest, nearest
from campana.core.spec import Stage
from campana.core.store import Store


@dataclass(frozen=True, slots=True)
class Why:
    """What is known of one stage."""

    key: str
    state: State
    reason: str
    nearest: Nearest | None
    """None where the stage is built, or nothing of its kind is."""

    @property
    def differences(self) -> tuple[Difference, ...]:
        """The fields that made it a new stage: stored (left), wanted (right)."""
        return self.nearest.differences if self.nearest else ()


def why(stage: Stage, store: Store) -> Why:
    """Say of one stage what `plan` says, with every difference, down through its inputs."""
    entry = next(entry for entry in make_plan([stage], store).entries if entry.key == stage.key)
    if entry.state == State.BUILT:
        return Why(stage.key, entry.state, entry.reason, None)
    index = Index.load(store)
    own = {each.key: recipe(each) for each in in_order([stage])}
    found = nearest(stage, own[stage.key], index, lambda key: own.get(key) or index.recipe(key), MOST_COMPARED, None)
    return Why(stage.key, entry.state, entry.reason, found)
