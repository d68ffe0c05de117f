"""From factors to arms: the product of the levels, put into the base recipe by dotted paths; and the contrast check.

Arms may differ only in what the factors declare. Every level of a factor sets the same fields; two factors never set the
same field. So a difference between two arms is always one that the study names.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from campana.errors import StudyError
from campana.parts import nearest
from campana.study.reading import Document, Place
from campana.study.schema import StudyFile


@dataclass(frozen=True)
class Draft:
    """An arm before its recipe is checked."""

    name: str
    levels: Mapping[str, str]
    baseline: bool
    values: Mapping[str, Any]
    """The recipe as nested plain values."""
    origins: Mapping[tuple[str, ...], Place]
    """Recipe path -> the place in the study file that set it."""


def draft_arms(file: StudyFile, document: Document) -> list[Draft]:
    """All arms: the product of the factors' levels without the excluded ones, then the baselines.

    Raises StudyError where levels of one factor set different fields, two factors set one field, an exclusion names an
    unknown level, or nothing is left.
    """
    _check_levels(file, document)
    _check_alike(file, document)
    _check_factors(file, document)
    _check_exclusions(file, document)
    drafts: list[Draft] = []
    for combination in itertools.product(*(levels.items() for levels in file.factors.values())):
        levels = {factor: level for factor, (level, _) in zip(file.factors, combination, strict=True)}
        if any(all(levels[factor] == level for factor, level in rule.items()) for rule in file.exclude):
            continue
        settings = [
            (path, value, ("factors", factor, level, path))
            for factor, (level, fields) in zip(file.factors, combination, strict=True)
            for path, value in fields.items()
        ]
        drafts.append(_draft(file, document, " ".join(f"{f}={v}" for f, v in levels.items()) or "base", levels, False, settings))
    for name, fields in file.baselines.items():
        drafts.append(_draft(file, document, name, {}, True, [(path, value, ("baselines", name, path)) for path, value in fields.items()]))
    if not drafts:
        raise StudyError("no arm is left: everything is excluded", where=document.where(("exclude",)))
    _check_names(drafts, document)
    return drafts


def _check_names(drafts: Sequence[Draft], document: Document) -> None:
    """Everything that is said of an arm is said by its name."""
    for name, count in Counter(draft.name for draft in drafts).items():
        if count > 1:
            of_baseline = any(draft.baseline for draft in drafts if draft.name == name)
            raise StudyError(
                f"two arms would be named {name!r}",
                where=document.where(("baselines", name) if of_baseline else ("factors",)),
                hint="give the baseline another name" if of_baseline else "give the levels other names",
            )


def _draft(
    file: StudyFile, document: Document, name: str, levels: Mapping[str, str], baseline: bool, settings: Sequence[tuple[str, Any, Place]]
) -> Draft:
    values = copy.deepcopy(dict(file.base))
    origins: dict[tuple[str, ...], Place] = {}
    for path, value, place in sorted(settings, key=lambda setting: setting[0].count(".")):
        steps = tuple(path.split("."))
        _put(values, steps, copy.deepcopy(value), document, place)
        origins[steps] = place
    return Draft(name, levels, baseline, values, origins)


def _put(values: dict[str, Any], steps: tuple[str, ...], value: Any, document: Document, place: Place) -> None:
    inner = values
    for step in steps[:-1]:
        if step not in inner:
            inner[step] = {}
        if isinstance(inner[step], str):  # A bare kind, `method: lora`, gets a field.
            inner[step] = {"kind": inner[step]}
        following: Any = inner[step]
        if not isinstance(following, dict):
            raise StudyError(
                f"{'.'.join(steps)} cannot be set: {step!r} is {following!r} in the base recipe",
                where=document.where(place),
                hint=f"write base.{step} out as a mapping first",
            )
        inner = following
    inner[steps[-1]] = value


def _check_levels(file: StudyFile, document: Document) -> None:
    for factor, levels in file.factors.items():
        every = {path for fields in levels.values() for path in fields}
        for level, fields in levels.items():
            missing = sorted(every - set(fields))
            if missing:
                other = next(name for name, theirs in levels.items() if missing[0] in theirs)
                raise StudyError(
                    f"factor {factor!r}: level {other!r} sets {missing[0]}, level {level!r} does not, so the arms would differ in a field"
                    " that this level does not declare",
                    where=document.where(("factors", factor, level)),
                    hint=f"set {missing[0]} in every level of {factor}, or in base for all arms",
                )


def _check_alike(file: StudyFile, document: Document) -> None:
    for factor, levels in file.factors.items():
        for (one, left), (other, right) in itertools.combinations(levels.items(), 2):
            if left == right:
                raise StudyError(
                    f"factor {factor!r}: levels {one!r} and {other!r} set the same, so there is nothing to compare",
                    where=document.where(("factors", factor, other)),
                    hint="let them differ in a field, or leave one out",
                )


def _check_factors(file: StudyFile, document: Document) -> None:
    owners: dict[str, str] = {}
    for factor, levels in file.factors.items():
        for path in {path for fields in levels.values() for path in fields}:
            if path in owners:
                raise StudyError(
                    f"factors {owners[path]!r} and {factor!r} both set {path}: their effects could not be told apart",
                    where=document.where(("factors", factor)),
                    hint="let one factor own the field",
                )
            owners[path] = factor
    for path, factor in owners.items():
        for above, other in owners.items():
            if factor != other and path.startswith(above + ".") and _reaches(file, other, above, path):
                raise StudyError(
                    f"factor {factor!r} sets {path}, which factor {other!r} sets within {above}: one would undo the other",
                    where=document.where(("factors", factor)),
                    hint=f"leave it out of {above} in the levels of {other}",
                )


def _reaches(file: StudyFile, factor: str, above: str, path: str) -> bool:
    """Whether a level's value of the path `above` holds the field `path` below it."""
    below = path.removeprefix(above + ".")
    found = (flatten(value) for fields in file.factors[factor].values() if isinstance(value := fields.get(above), Mapping))
    return any(below == name or below.startswith(name + ".") or name.startswith(below + ".") for flat in found for name in flat)


def _check_exclusions(file: StudyFile, document: Document) -> None:
    for index, rule in enumerate(file.exclude):
        for factor, level in rule.items():
            if factor not in file.factors:
                raise StudyError(
                    f"unknown factor {factor!r}", where=document.where(("exclude", index)), hint=nearest(factor, list(file.factors))
                )
            if level not in file.factors[factor]:
                raise StudyError(
                    f"factor {factor!r} has no level {level!r}",
                    where=document.where(("exclude", index)),
                    hint=nearest(level, list(file.factors[factor])),
                )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted paths; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, path))
        else:
            flat[path] = value
    return flat


def contrast_check(arms: Iterable[tuple[str, Mapping[str, str], Mapping[str, Any]]], declared: Mapping[str, Iterable[str]]) -> None:
    """Compare resolved flat recipes field by field: arms differ only in fields of the factors in which their levels differ.

    `arms` are (name, levels, flat recipe); `declared` maps each factor to the paths that its levels set.
    """
    listed = list(arms)
    first_name, first_levels, first = listed[0]
    for name, levels, recipe in listed[1:]:
        allowed = [path for factor, paths in declared.items() if levels.get(factor) != first_levels.get(factor) for path in paths]
        for path in sorted(set(first) | set(recipe)):
            if first.get(path) == recipe.get(path) and (path in first) == (path in recipe):
                continue
            if not any(path == own or path.startswith(own + ".") or own.startswith(path + ".") for own in allowed):
                raise StudyError(
                    f"arms {first_name!r} and {name!r} differ in {path} ({first.get(path)!r} and {recipe.get(path)!r}),"
                    " which no factor declares",
                    hint=f"declare {path} in a factor, or make it equal in both arms",
                )
