"""The proof that arms differ only in what the factors declare: every field of every resolved recipe, compared.

compare({"a": {"tune.lr": 1}, "b": {"tune.lr": 2}}, levels, {"lr": ["tune.lr"]}, [])["undeclared"] == []
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_ABSENT = object()


def compare(
    recipes: Mapping[str, Mapping[str, Any]],
    levels: Mapping[str, Mapping[str, str]],
    declared: Mapping[str, Iterable[str]],
    baselines: Sequence[str],
) -> dict[str, Any]:
    """Compare flat recipes (dotted path -> value) of arms.

    `levels` gives each arm's level of each factor, `declared` the paths that each factor sets. A path is declared by a factor if it
    is one of the factor's paths (or below or above one) and arms of one level agree in it. Baselines stand beside the factors: their
    differences from the first other arm are listed apart and are declared by the study's `baselines`.

    Returns {num_fields, differences: [{path, factor or None, values: {arm: value}}], undeclared: [path], same: {path: value},
    baselines: {name: [path]}}; a field that an arm has not is absent from `values`.
    """
    crossed = [name for name in recipes if name not in baselines]
    paths = sorted({path for recipe in recipes.values() for path in recipe})
    differences: list[dict[str, Any]] = []
    same: dict[str, Any] = {}
    for path in paths:
        values = {name: recipes[name].get(path, _ABSENT) for name in crossed}
        if not values or all(value is _ABSENT for value in values.values()):
            continue
        first = next(iter(values.values()))
        if all(_equal(value, first) for value in values.values()):
            same[path] = first
            continue
        present = {name: value for name, value in values.items() if value is not _ABSENT}
        differences.append({"path": path, "factor": _factor(path, values, levels, declared), "values": present})
    reference = recipes[crossed[0]] if crossed else {}
    apart = {
        name: [path for path in paths if not _equal(recipes[name].get(path, _ABSENT), reference.get(path, _ABSENT))]
        for name in recipes
        if name in baselines and crossed
    }
    return {
        "num_fields": len(differences) + len(same),
        "differences": differences,
        "undeclared": [difference["path"] for difference in differences if difference["factor"] is None],
        "same": same,
        "baselines": apart,
    }


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _factor(
    path: str, values: Mapping[str, Any], levels: Mapping[str, Mapping[str, str]], declared: Mapping[str, Iterable[str]]
) -> str | None:
    """The factor that declares the path and explains its values, or None."""
    for factor, owned in declared.items():
        if not any(path == own or path.startswith(own + ".") or own.startswith(path + ".") for own in owned):
            continue
        by_level: dict[str | None, Any] = {}
        if all(_equal(by_level.setdefault(levels[name].get(factor), value), value) for name, value in values.items()):
            return factor
    return None
