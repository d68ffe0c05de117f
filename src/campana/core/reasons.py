"""Reasons: the stored stage that a missing one is most like, and their differences in words.

>>> in_words(nearest(stage, recipe(stage), index, recipes, 50), stage)
'differs in learning_rate.value: 0.0001 -> 0.0003'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from campana.core.code import code_digest
from campana.core.index import Entry, Index
from campana.core.keys import Difference, Recipe, differences
from campana.core.spec import Stage

Recipes = Callable[[str], Recipe | None]
FEW = 3
"""Differences that a reason spells out."""
FEW_INPUTS = 2
"""Inputs that a brief reason names."""
BRIEF = 40
"""Most characters of a value in a brief reason."""
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


def in_words(found: Nearest | None, stage: Stage, *, brief: bool = False) -> str:
    """The reason why a stage that is not in the store has to be built. `brief`: long values and long lists of inputs are shortened."""
    if found is None:
        return "not in the store"
    other = "" if found.label == stage.label and found.label else f" from {found.label or found.key[:8]}"
    own = [difference for difference in found.differences if not difference.path.startswith("inputs.")]
    if own:
        return f"differs{other} in " + _spelt(own, brief)
    names: dict[str, list[Difference]] = {}
    for difference in found.differences:
        names.setdefault(_input_name(difference.path, stage), []).append(difference)
    changes = [f"input {name} {_input_change(name, listed, brief)}" for name, listed in names.items()]
    more = len(changes) - FEW_INPUTS
    told = "; ".join(changes[:FEW_INPUTS]) + f"; and {more} more" if brief and more > 0 else "; ".join(changes)
    return f"differs{other}: {told}" if other else told


def _input_name(path: str, stage: Stage) -> str:
    rest = path.removeprefix("inputs.")
    known = [name for name in stage.inputs if rest == name or rest.startswith(name + ".")]
    return max(known, key=len, default=rest.split(".")[0])


def _input_change(name: str, listed: list[Difference], brief: bool) -> str:
    if len(listed) == 1 and listed[0].path == f"inputs.{name}":
        return "is another one"
    own = [Difference(each.path.removeprefix(f"inputs.{name}."), each.left, each.right) for each in listed]
    return f"is rebuilt ({_spelt(own, brief)})"


def _spelt(listed: list[Difference], brief: bool) -> str:
    few = 1 if brief else FEW
    more = f" and {len(listed) - few} more" if len(listed) > few else ""
    return ", ".join(_brief(each) if brief else str(each) for each in listed[:few]) + more


def _brief(difference: Difference) -> str:
    """A difference with readable values: the start of a digest or a long text, the size of a list or a mapping."""
    path = difference.path if len(difference.path) <= BRIEF else "..." + difference.path[-BRIEF + 3 :]
    return f"{path}: {_brief_value(difference.left)} -> {_brief_value(difference.right)}"


def _brief_value(value: object) -> str:
    if isinstance(value, str):
        name = value.rpartition(":")[2]
        if len(name) == 64 and not set(name) - set("0123456789abcdef"):
            return name[:8]
    elif isinstance(value, Mapping):
        named: object = value.get("kind")  # pyright: ignore[reportUnknownVariableType]  # any mapping
        return str(named) if isinstance(named, str) else f"{len(value)} fields"  # pyright: ignore[reportUnknownArgumentType]
    text = repr(value)
    if isinstance(value, (list, tuple)) and len(text) > BRIEF:
        return f"{len(value)} values"  # pyright: ignore[reportUnknownArgumentType]  # any sequence
    return text if len(text) <= BRIEF else text[: BRIEF - 3] + "..."


def is_stale(stage: Stage, index: Index) -> bool:
    """Whether the code that declares a built stage's parts has changed since. Advice: only a part's `version` re-keys."""
    entry = index.entries.get(stage.key)
    return entry is not None and bool(entry.code) and entry.code != code_digest(stage.spec)
