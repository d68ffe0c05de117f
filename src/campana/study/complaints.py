"""From pydantic's errors to what a person can use: the place in the file, what is wrong, the nearest name."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from campana.errors import StudyError
from campana.parts import GROUPS, known, nearest
from campana.study.reading import Place

SAID = {
    "missing": "is required",
    "extra_forbidden": "is not a field here",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be text",
    "dict_type": "must be a mapping (name: value)",
    "mapping_type": "must be a mapping (name: value)",
    "model_type": "must be a mapping (name: value)",
    "model_attributes_type": "must be a mapping (name: value)",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
}


def study_error(
    error: ValidationError, model: type[BaseModel], values: Any, locate: Callable[[Place], str], prefix: Place = ()
) -> StudyError:
    """One StudyError for a failed validation: the first complaint in full, the others listed.

    `locate` turns a path of the recipe or file into a place that a person can open.
    """
    complaints: list[tuple[str, str, str | None]] = []
    problems = [(_place(problem["loc"], values, problem["type"]), problem) for problem in error.errors(include_url=False)]
    for place, problem in problems:
        if problem["type"].endswith("_type") and any(len(other) > len(place) and other[: len(place)] == place for other, _ in problems):
            continue  # Another form that the field could have; the complaints below are of the form that it has.
        text = SAID.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        hint = None
        if problem["type"] == "extra_forbidden":
            hint = nearest(str(place[-1]), _fields(model, place[:-1], _at(values, place[:-1])))
        elif problem["type"] not in ("missing", "value_error"):
            text += f", not {_short(_at(values, place))}"
        complaint = (locate((*prefix, *place)), f"{place[-1] if place else 'this'} {text}", hint)
        if all(complaint[0] != other[0] for other in complaints):
            complaints.append(complaint)
    where, message, hint = complaints[0]
    others = [f"{place}: {text}" + (f" ({tip})" if tip else "") for place, text, tip in complaints[1:6]]
    if others:
        message += "\nalso: " + "\n      ".join(others)
    return StudyError(message, where=where, hint=hint)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _place(loc: tuple[int | str, ...], values: Any, kind: str) -> Place:
    """The part of pydantic's location that is in the file: steps into union members and validators are left out."""
    place: list[int | str] = []
    inner = values
    for index, step in enumerate(loc):
        if isinstance(inner, Mapping) and (step in inner or (kind == "missing" and index == len(loc) - 1)):
            place.append(step)
            inner = inner.get(step)
        elif isinstance(inner, (list, tuple)) and isinstance(step, int) and step < len(inner):
            place.append(step)
            inner = inner[step]
    return tuple(place)


def _at(values: Any, place: Place) -> Any:
    for step in place:
        try:
            values = values[step]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _fields(model: Any, place: Place, value: Any) -> list[str]:
    """The names of the fields at a place of a model, through unions and mappings; those of the kind that `value` names."""
    models = _models(model)
    for step in place:
        following: list[type[BaseModel]] = []
        for candidate in models:
            field = candidate.model_fields.get(str(step))
            if field is not None:
                following += _models(field.annotation)
        models = following or models
    kind = value.get("kind") if isinstance(value, Mapping) else None
    for group in GROUPS if kind else ():
        part = known(group).get(str(kind))
        if part is not None and any(issubclass(part, candidate) for candidate in models):
            models = [part]
    return sorted({name for candidate in models for name in candidate.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType) or get_args(annotation):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []
