"""The graph of stages: orders, ancestors, descendants. It knows stages only by their inputs, and never runs or stores anything.

for stage in in_order([report]):   # every stage after its inputs
    ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from campana.core.spec import Stage
from campana.errors import StudyError


def input_stages(stage: Stage) -> list[Stage]:
    """The inputs that are stages, in the order in which they were given."""
    return [value for value in stage.inputs.values() if isinstance(value, Stage)]


def in_order(targets: Iterable[Stage]) -> list[Stage]:
    """All stages that the targets need and the targets, each object once, inputs first. A cycle is an error that shows it.

    Works on any depth: it does not recurse.
    """
    done: set[int] = set()
    ordered: list[Stage] = []
    for target in targets:
        _visit(target, done, ordered)
    return ordered


def _visit(target: Stage, done: set[int], ordered: list[Stage]) -> None:
    if id(target) in done:
        return
    trail = [target]
    open_ids = {id(target)}
    pending = [iter(input_stages(target))]
    while pending:
        following = next((stage for stage in pending[-1] if id(stage) not in done), None)
        if following is None:
            pending.pop()
            stage = trail.pop()
            open_ids.discard(id(stage))
            done.add(id(stage))
            ordered.append(stage)
            continue
        if id(following) in open_ids:
            raise _cycle(trail, following)
        trail.append(following)
        open_ids.add(id(following))
        pending.append(iter(input_stages(following)))


def _cycle(trail: list[Stage], closing: Stage) -> StudyError:
    start = next(index for index, stage in enumerate(trail) if stage is closing)
    names = [stage.label or type(stage.spec).__name__.lower() for stage in [*trail[start:], closing]]
    return StudyError("these stages wait for each other: " + " <- ".join(names), hint="no stage can be an input of its own input")


def by_key(targets: Iterable[Stage]) -> dict[str, Stage]:
    """The same as `in_order`, with equal work once: key -> the first stage that has it."""
    stages: dict[str, Stage] = {}
    for stage in in_order(targets):
        stages.setdefault(stage.key, stage)
    return stages


def topological(targets: Iterable[Stage]) -> list[Stage]:
    """All stages that the targets need and the targets, equal work once, inputs first."""
    return list(by_key(targets).values())


def input_keys(stage: Stage) -> list[str]:
    """The keys of the inputs that are stages."""
    return [value.key for value in input_stages(stage)]


def descendants(stages: Mapping[str, Stage], key: str) -> set[str]:
    """The keys of all stages among `stages` (in the order of `by_key`) that need `key`, directly or not, without `key` itself."""
    found = {key}
    for name, stage in stages.items():
        if not found.isdisjoint(input_keys(stage)):
            found.add(name)
    return found - {key}
