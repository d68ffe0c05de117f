"""The plan: what would run and why. It reads the store and changes nothing (but for caches).

plan = make_plan([report], store)
for entry in plan.entries:
    print(entry.state, entry.stage.label, entry.reason)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from campana.core.graph import by_key, input_keys
from campana.core.index import Index
from campana.core.keys import Recipe, recipe
from campana.core.reasons import MOST_COMPARED, in_words, is_stale, nearest
from campana.core.spec import Stage
from campana.core.store import Store

COMPARISONS = 20_000
"""Recipes that one plan compares at most to find the nearest stored stages, so that a large plan stays quick."""


class State(StrEnum):
    """Where a stage stands."""

    BUILT = "built"
    BUILD = "build"
    RUNNING = "running"
    """A living process builds it now."""
    FAILED = "failed before"
    """It will be tried again."""


@dataclass(frozen=True, slots=True)
class PlanEntry:
    """One stage of the plan."""

    key: str
    stage: Stage
    state: State
    reason: str
    """In words: which field differs from what is stored, which input is rebuilt, what failed."""
    stale: bool = False
    """Built by other code of the same version. Advice only."""
    brief: str = ""
    """The reason with long values and long lists shortened, for a line of a terminal."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the targets need, inputs first."""

    entries: tuple[PlanEntry, ...]
    """Every stage that is built already or has to be."""
    skipped: tuple[Stage, ...]
    """Stages that are neither stored nor needed: only built stages use them."""

    @property
    def missing(self) -> tuple[PlanEntry, ...]:
        """The entries that are not built."""
        return tuple(entry for entry in self.entries if entry.state != State.BUILT)


def make_plan(targets: Sequence[Stage], store: Store) -> Plan:
    """Look every stage up. A cycle among the stages, or a value that cannot be in a key, is a `StudyError`."""
    stages = by_key(targets)
    built = {key for key in stages if store.has(key)}
    needed = needed_keys(stages, [target.key for target in targets], built)
    missing = [key for key in stages if key in needed]
    index = Index.load(store)
    reasons = _reasons(stages, missing, index)
    entries = tuple(
        _built(stages[key], index) if key in built else _missing(stages[key], reasons[key], store)
        for key in stages
        if key in built or key in needed
    )
    return Plan(entries, tuple(stage for key, stage in stages.items() if key not in built and key not in needed))


def needed_keys(stages: dict[str, Stage], targets: Sequence[str], built: set[str]) -> set[str]:
    """The keys that have to be built: missing targets, and what those need that is missing too. A built stage needs nothing."""
    needed: set[str] = set()
    pending = list(targets)
    while pending:
        key = pending.pop()
        if key in built or key in needed:
            continue
        needed.add(key)
        pending += input_keys(stages[key])
    return needed


def _built(stage: Stage, index: Index) -> PlanEntry:
    if stage.key in index.damaged:
        return PlanEntry(stage.key, stage, State.BUILT, "in the store, but its manifest is damaged: campana verify --repair")
    stale = is_stale(stage, index)
    return PlanEntry(stage.key, stage, State.BUILT, "in the store" + (", built by other code of this version" if stale else ""), stale)


def _missing(stage: Stage, reason: tuple[str, str], store: Store) -> PlanEntry:
    if store.is_running(stage.key):
        return PlanEntry(stage.key, stage, State.RUNNING, "a living process builds it now")
    failure = store.failure(stage.key)
    if failure is not None:
        return PlanEntry(
            stage.key, stage, State.FAILED, f"failed: {failure.splitlines()[0] if failure else 'no reason given'}; will be tried again"
        )
    return PlanEntry(stage.key, stage, State.BUILD, reason[0], brief=reason[1])


def _reasons(stages: dict[str, Stage], missing: Sequence[str], index: Index) -> dict[str, tuple[str, str]]:
    """Key -> the reason, in full and in brief."""
    if not index.entries or not missing:
        return dict.fromkeys(missing, ("not in the store", "not in the store"))
    own: dict[str, Recipe] = {}

    def find(key: str) -> Recipe | None:
        if key not in own and key in stages:
            own[key] = recipe(stages[key])
        return own.get(key) or index.recipe(key)

    recipes: Callable[[str], Recipe | None] = find
    most = max(1, min(MOST_COMPARED, COMPARISONS // len(missing)))
    found: dict[str, tuple[str, str]] = {}
    for key in missing:
        wanted = find(key)
        assert wanted is not None
        like = nearest(stages[key], wanted, index, recipes, most)
        found[key] = in_words(like, stages[key]), in_words(like, stages[key], brief=True)
    return found
