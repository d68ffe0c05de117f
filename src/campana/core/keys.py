"""Recipes and keys: what a stage is made of, its name in the store, and how two recipes differ.

It owns the form of a recipe, `{"part": kind, "version": n, <identity fields>, "inputs": {name: key or source identity}}`, and
the rule `key = sha256(canonical(recipe))`. It refuses fields that would hide others, and sources without a content identity.

    >>> differences(recipe(slow), recipe(fast))
    [Difference(path='learning_rate.value', left=0.0001, right=0.0003)]
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from campana.core.canon import canonical, joined
from campana.core.graph import in_order
from campana.core.spec import Source, Stage, StageSpec
from campana.errors import StudyError
from campana.parts import kind_of

Recipe = Mapping[str, Any]
RESERVED = ("part", "version", "inputs")


def recipe(stage: Stage) -> dict[str, Any]:
    """What the stage's key is the hash of. Inputs that are stages appear by key, sources by identity."""
    inputs = {name: _input_identity(name, value) for name, value in stage.inputs.items()}
    return {**spec_recipe(stage.spec), "inputs": inputs}


def spec_recipe(spec: StageSpec) -> dict[str, Any]:
    """The part of the recipe that the spec alone decides: no inputs."""
    fields = spec.identity()
    kind, version = fields.pop("kind"), fields.pop("version")
    for name in RESERVED:
        if name in fields:
            raise StudyError(f"a stage's spec cannot have a field named {name!r}: the recipe uses it", where=kind_of(type(spec)))
    return {"part": kind, "version": version, **fields}


def _input_identity(name: str, value: Stage | Source) -> str:
    if isinstance(value, Stage):
        return value.key
    if ":" not in value.identity:
        raise StudyError(
            f"the source {value.identity!r} is not known by its content",
            where=f"inputs.{name}",
            hint="wrong: Source('train.jsonl', path)   right: Source(digest_path(path), path), which is 'sha256:...'",
        )
    return value.identity


def key_of(stage: Stage) -> str:
    """64 hex digits. Remembered on the stage; works on any depth, and a cycle is an error."""
    if "key" not in stage.__dict__:
        for each in in_order([stage]):
            if "key" not in each.__dict__:
                each.__dict__["key"] = hash_recipe(recipe(each))
    return stage.__dict__["key"]


def hash_recipe(value: Recipe) -> str:
    """The key of a recipe."""
    return hashlib.sha256(canonical(value)).hexdigest()


def recipes_of(targets: Iterable[Stage]) -> dict[str, dict[str, Any]]:
    """Key -> recipe, of the targets and all that they need. Its `get` is what `differences` asks for the recipes of inputs."""
    return {stage.key: recipe(stage) for stage in in_order(targets)}


class Absent:
    """The value of a field that one side does not have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which two recipes differ."""

    path: str
    """`learning_rate.value`; below an input, `inputs.data.portions.alpaca.count`."""
    left: Any
    """The value on the left, or `ABSENT`."""
    right: Any

    def __str__(self) -> str:
        return f"{self.path}: {_short(self.left)} -> {_short(self.right)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def differences(
    left: Recipe, right: Recipe, recipes: Callable[[str], Recipe | None] | None = None, most_inputs: int | None = None
) -> list[Difference]:
    """The fields in which two recipes differ, nearest first; empty exactly where their keys are equal.

    An input whose key differs is explained by the differences of its own two recipes where `recipes` knows both; where it does
    not, the two keys are the difference. Work shared by several inputs is told once, by the shortest path. `most_inputs` bounds how
    many inputs are looked into, so that a plan's reasons stay quick; None: all.
    """
    found: list[Difference] = []
    seen: set[tuple[str, str]] = set()
    pending: deque[tuple[str, Recipe, Recipe]] = deque([("", left, right)])
    while pending:
        path, one, other = pending.popleft()
        for difference in _compare(path, one, other):
            is_input = difference.path.startswith(joined(path, "inputs."))
            if is_input and (difference.left, difference.right) in seen:
                continue
            look_into = is_input and (most_inputs is None or len(seen) < most_inputs)
            pair = _input_recipes(difference, recipes) if look_into else None
            if pair is None:
                found.append(difference)
            else:
                seen.add((difference.left, difference.right))
                pending.append((difference.path, *pair))
    return found


def _input_recipes(difference: Difference, recipes: Callable[[str], Recipe | None] | None) -> tuple[Recipe, Recipe] | None:
    """The recipes of the two stages that are the values of one input; None where it is a source, absent, or not known."""
    if recipes is None or difference.left is ABSENT or difference.right is ABSENT:
        return None
    one, other = recipes(difference.left), recipes(difference.right)
    return (one, other) if one is not None and other is not None else None


def _compare(path: str, left: Any, right: Any) -> list[Difference]:
    if left is right or (type(left) is type(right) and isinstance(left, (str, int)) and left == right):
        return []  # the common case; what decides is the canonical form below
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        one, other = cast("Mapping[str, Any]", left), cast("Mapping[str, Any]", right)
        names = [*one, *(name for name in other if name not in one)]
        return [difference for name in names for difference in _compare(joined(path, name), one.get(name, ABSENT), other.get(name, ABSENT))]
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and len(left) == len(right):
        return [
            difference
            for index, (one, other) in enumerate(zip(left, right, strict=True))
            for difference in _compare(f"{path}[{index}]", one, other)
        ]
    same = left is not ABSENT and right is not ABSENT and canonical(left) == canonical(right)
    return [] if same else [Difference(path, left, right)]
