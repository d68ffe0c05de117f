"""The task: one JSON file that says all that a process needs to build one stage. `python -m campana.worker task.json` runs it.

It owns the schema `campana.task/1`. A task is written anew for every try; it may name paths of this machine, a manifest never does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from campana.core.canon import canonical, joined
from campana.core.disk import read_json, write_json
from campana.core.keys import Recipe, recipe, spec_recipe
from campana.core.spec import Expected, Resources, Source, Stage, StageSpec
from campana.errors import StoreError
from campana.parts import EXECUTION, Part, find

SCHEMA = "campana.task/1"
NAME = "task.json"


@dataclass(frozen=True, slots=True)
class Task:
    """A stage, made ready to be built somewhere else."""

    key: str
    store: str
    """The store's folder."""
    kind: str
    label: str
    spec: Mapping[str, Any]
    """All fields of the spec, the execution ones too."""
    recipe: Recipe
    inputs: Mapping[str, Mapping[str, str]]
    """Name -> {"key": ...} of a built stage, or {"identity": ..., "path": ...} of a source."""
    resources: Resources
    expected: Expected | None = None
    """What was predicted, for the manifest."""

    @classmethod
    def of(cls, stage: Stage, store: Path, resources: Resources, expected: Expected | None = None) -> Task:
        """The task that builds a stage with these resources."""
        whole = recipe(stage)
        return cls(
            key=stage.key,
            store=str(store.resolve()),
            kind=str(whole["part"]),
            label=stage.label,
            spec=stage.spec.model_dump(mode="json", serialize_as_any=True),
            recipe=whole,
            inputs={name: _input(value) for name, value in stage.inputs.items()},
            resources=resources,
            expected=expected,
        )

    def write(self, path: Path) -> None:
        """Write the JSON form."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"schema": SCHEMA, **asdict(self)}, durable=False)

    @classmethod
    def read(cls, path: Path) -> Task:
        """Read the JSON form; another schema is an error."""
        try:
            value = read_json(path)
        except FileNotFoundError:
            raise StoreError("there is no such task", where=str(path), hint="campana run STUDY writes tasks and runs them") from None
        if value.pop("schema", None) != SCHEMA:
            raise StoreError(f"not a task of schema {SCHEMA!r}", where=str(path), hint="was it written by another version of campana?")
        resources = Resources(**value.pop("resources"))
        told = value.pop("expected", None)
        return cls(**value, resources=resources, expected=None if told is None else Expected(**told))

    def load_spec(self) -> StageSpec:
        """The spec as a part. An error where this code would give it another recipe than the code that planned it."""
        spec = find("stage", self.kind).model_validate(self.spec)
        assert isinstance(spec, StageSpec)
        planned = {name: value for name, value in self.recipe.items() if name != "inputs"}
        if canonical(spec_recipe(spec)) != canonical(planned):
            raise StoreError("the code that runs this task is not the code that planned it", where=self.label or self.key[:12])
        return spec

    def execution(self, spec: StageSpec) -> dict[str, Any]:
        """How it is run, for the manifest: execution fields by path, the resources, and what was predicted."""
        expected = {} if self.expected is None else {"expected": asdict(self.expected)}
        return {**dict(_execution_fields(spec, "")), "resources": asdict(self.resources), **expected}


def _input(value: Stage | Source) -> dict[str, str]:
    if isinstance(value, Stage):
        return {"key": value.key}
    whole = {} if value.whole is None else {"whole": value.whole}
    return {"identity": value.identity, "path": str(value.path.resolve()), **whole}


def _execution_fields(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Part):
        dumped = value.model_dump(mode="json", serialize_as_any=True)
        for name, info in type(value).model_fields.items():
            if EXECUTION in info.metadata:
                yield joined(path, name), dumped[name]
            else:
                yield from _execution_fields(getattr(value, name), joined(path, name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _execution_fields(item, joined(path, str(name)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _execution_fields(item, f"{path}[{index}]")
