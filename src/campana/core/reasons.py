"""Reasons: the stored stage that a missing one is most like, and their differences in words.

>>> in_words(nearest(stage, recipe(stage), index, recipes, 50), stage)
'differs in learning_rate.value: 0.0001 -> 0.0003'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from campana.core.code import code_digest
from campana.core.index import Entry, Index
from campana.core.keys import Difference, Recipe, differences
from campana.core.spec import Stage

Recipes = Callable[[str], Recipe | None]
FEW = 3
"""Differences that a reason spells out."""
MOST_COMPARED = 50
"""Stored stages that are compared where none has the same label."""
MOST_INPUTS = 64
"""Inputs into which a plan's reason looks; `why` looks into all."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The stored stage that a missing one is most like."""

    key: str
    label: str
    differences: tuple[Difference, ...]
    """From the stored stage (left) to the wanted one (right)."""


def nearest(
    stage: Stage, wanted: Recipe, index: Index, recipes: Recipes, most_compared: int, most_inputs: int | None = MOST_INPUTS
) -> Nearest | None:
    """The stored stage of the same kind with the same label (the newest), or else with the fewest differences."""
    kind = str(wanted["part"])
    same = index.by_label.get((kind, stage.label), []) if stage.label else []
    candidates: Sequence[Entry] = same[:1] or index.by_kind.get(kind, [])[:most_compared]
    if not candidates:
        return None
    entry = min(candidates, key=lambda entry: len(differences(entry.recipe, wanted))) if len(candidates) > 1 else candidates[0]
    return Nearest(entry.key, entry.label, tuple(differences(entry.recipe, wanted, recipes, most_inputs)))


def in_words(found: Nearest | None, stage: Stage) -> str:
    """The reason why a stage that is not in the store has to be built."""
    if found is None:
        return "not in the store"
    other = "" if found.label == stage.label and found.label else f" from {found.label or found.key[:8]}"
    own = [difference for difference in found.differences if not difference.path.startswith("inputs.")]
    if own:
        return f"differs{other} in " + _spelt(own)
    names: dict[str, list[Difference]] = {}
    for difference in found.differences:
        names.setdefault(_input_name(difference.path, stage), []).append(difference)
    told = "; ".join(f"input {name} {_input_change(name, listed)}" for name, listed in names.items())
    return f"differs{other}: {told}" if other else told


def _input_name(path: str, stage: Stage) -> str:
    rest = path.removeprefix("inputs.")
    known = [name for name in stage.inputs if rest == name or rest.startswith(name + ".")]
    return max(known, key=len, default=rest.split(".")[0])


def _input_change(name: str, listed: list[Difference]) -> str:
    if len(listed) == 1 and listed[0].path == f"inputs.{name}":
        return "is another one"
    return f"is rebuilt ({_spelt([Difference(each.path.removeprefix(f'inputs.{name}.'), each.left, each.right) for each in listed])})"


def _spelt(listed: list[Difference]) -> str:
    more = f" and {len(listed) - FEW} more" if len(listed) > FEW else ""
    return ", ".join(str(difference) for difference in listed[:FEW]) + more


def is_stale(stage: Stage, index: Index) -> bool:
    """Whether the code that declares a built stage's parts has changed since. Advice: only a part's `version` re-keys."""
    entry = index.entries.get(stage.key)
    return entry is not None and bool(entry.code) and entry.code != code_digest(stage.spec)
