"""Parts: the declared, frozen values that studies are made of, the roles of their fields, and the registry of kinds.

A *part* is a pydantic model with a `kind` and a `version`: a method, a learning-rate schedule, an engine, a check, or the
spec of a whole stage. Every field plays one role:

- *identity* (the default): it can move a number, so it is in the recipe key;
- *execution*: how, not what (micro batch, threads, concurrency); recorded, never keyed;
- *added*: a field that came later; keyed only when it differs from its default, so that old keys stay valid.

    class Lora(Method):
        kind: Literal["lora"] = "lora"
        rank: int = 16
        checkpoint_seconds: Annotated[float, EXECUTION] = 300.0
        use_dora: Annotated[bool, ADDED] = False

A kind lives in one file of its group's package, or in another distribution's entry point `campana.<group>`.
This module knows nothing of what the parts do, and importing it (or any file that declares a part) never loads torch.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from campana.errors import StudyError


class Role(Enum):
    """What a field means to the recipe key."""

    EXECUTION = "execution"
    ADDED = "added"


EXECUTION = Role.EXECUTION
ADDED = Role.ADDED

GROUPS: dict[str, str] = {
    "stage": "campana.stages",
    "source": "campana.models.sources",
    "format": "campana.data.formats",
    "method": "campana.tuning.methods",
    "engine": "campana.generation.engines",
    "check": "campana.checks",
    "edit": "campana.reading.edits.operators",
    "objective": "campana.reading.training.objectives",
}
"""Group name -> the package whose modules declare its built-in kinds. Other distributions add theirs by entry points."""


class Part(BaseModel):
    """A frozen declared value. Subclasses add `kind: Literal["x"] = "x"` to be found by that name."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    version: ClassVar[int] = 1
    """A number that is raised by hand when the same fields come to mean another result. It is in the key."""

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """`rank: true` is a slip, though Python counts it as 1. Of the whole, since a field that tells kinds apart allows no validator."""
        if isinstance(values, Mapping):
            for name, value in values.items():
                field = cls.model_fields.get(str(name))
                if isinstance(value, bool) and field is not None and _is_number(field.annotation):
                    raise ValueError(f"{name} must be a number, not {str(value).lower()}")
        return values

    def identity(self) -> dict[str, Any]:
        """The fields that can move a number, as plain values; nested parts become their own identity with kind and version."""
        fields: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            if EXECUTION in info.metadata or name == "kind":
                continue
            if ADDED in info.metadata and value == info.get_default(call_default_factory=True):
                continue
            fields[name] = _plain(value)
        return {"kind": kind_of(type(self)), "version": self.version, **fields}


def _is_number(annotation: Any) -> bool:
    """Whether a field takes numbers and no truth values."""
    kinds = {annotation, *get_args(annotation)}
    return bool(kinds & {int, float}) and bool not in kinds


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.identity()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def parts_in(value: Any) -> Iterator[Part]:
    """The part itself and all parts in its fields; or all that a mapping or a list holds."""
    if isinstance(value, Part):
        yield value
        for name in type(value).model_fields:
            yield from parts_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from parts_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from parts_in(item)


def kind_of(part: type[Part]) -> str:
    """The registered name of a part's class: its `kind` default, or the class name in lower case where it has none."""
    field = part.model_fields.get("kind")
    return str(field.default) if field is not None else part.__name__.lower()


@cache
def known(group: str) -> Mapping[str, type[Part]]:
    """All kinds of a group, built-in and from entry points, by name.

    A module of the group's package that fails to import is an error; so are two classes with one kind.
    """
    package = importlib.import_module(GROUPS[group])
    classes: list[type[Part]] = []
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        classes += [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Part)
            and value.__module__ == module.__name__
            and "kind" in value.model_fields
            and isinstance(value.model_fields["kind"].default, str)
        ]
    classes += [point.load() for point in entry_points(group=f"campana.{group}")]
    kinds: dict[str, type[Part]] = {}
    for part in classes:
        if kinds.setdefault(kind_of(part), part) is not part:
            raise StudyError(f"two {group}s are named {kind_of(part)!r}: {kinds[kind_of(part)]} and {part}")
    return dict(sorted(kinds.items()))


def nearest(name: str, names: list[str] | tuple[str, ...]) -> str:
    """A hint for an unknown name: the nearest known one, and the list."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = ", ".join(sorted(names))
    return f"did you mean {close[0]!r}? known: {listed}" if close else f"known: {listed}"


def find(group: str, kind: str) -> type[Part]:
    """The class of a kind; an unknown kind is an error with the nearest name."""
    kinds = known(group)
    if kind not in kinds:
        raise StudyError(f"unknown {group} {kind!r}", hint=nearest(kind, list(kinds)))
    return kinds[kind]


def part_of(group: str) -> Any:
    """A pydantic annotation for a field that holds a registered part of `group`, given as a part, a dict with `kind`, or a bare kind."""

    def resolve(value: Any) -> Any:
        if isinstance(value, str):
            value = {"kind": value}
        if isinstance(value, Mapping):
            if "kind" not in value:
                raise ValueError(f"needs a kind: {{kind: ...}}; known {group}s: {', '.join(known(group))}")
            try:
                cls = find(group, str(value["kind"]))
            except StudyError as error:
                raise ValueError(f"{error.message}; {error.hint}") from None
            return cls.model_validate(dict(value))
        return value

    return BeforeValidator(resolve)
