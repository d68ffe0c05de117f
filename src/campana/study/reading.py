"""Reading a study file: YAML to plain values, with the line of every field, so that errors can say where.

It reads what people mean where YAML 1.1 does not: `1e-5` is a number, `010` is ten and not eight, `1:30` is no number, and `no`, `on`,
`off` are names, not truth values.
Refused, each with its line: two equal keys, a key that is not text, tabs, aliases that contain themselves, bytes that are not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from campana.errors import StudyError

Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML with the core schema's numbers and truth values (YAML 1.2)."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"), list("-+0123456789.")
)


@dataclass(frozen=True)
class Document:
    """The values of a file, and where each one stands."""

    values: dict[str, Any]
    lines: Mapping[Place, int]
    """Path of a field -> its line, from 1."""
    path: Path | None = None

    def where(self, place: Place) -> str:
        """`study.yaml:12 base.tune.lr`: the nearest place above it that has a line."""
        name = ".".join(str(step) for step in place)
        file = self.path.name if self.path else "study"
        for end in range(len(place), 0, -1):
            line = self.lines.get(place[:end])
            if line is not None:
                return f"{file}:{line} {name}"
        return f"{file} {name}".rstrip()


def read_document(path: Path) -> Document:
    """Read a YAML study file. Raises StudyError with file and line."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        near = sorted(other.name for other in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"study files there: {', '.join(near)}" if near else "give the path of a study file, such as studies/quickstart.yaml"
        raise StudyError("no such file", where=str(path), hint=hint) from None
    except OSError as error:
        raise StudyError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise StudyError(
            f"not UTF-8: byte 0x{data[error.start]:02x}", where=f"{path.name}:{line}", hint="save the file as UTF-8 in your editor"
        ) from None
    return parse_document(text, path)


def parse_document(text: str, path: Path | None = None) -> Document:
    """Parse the text of a study file."""
    file = path.name if path else "study"
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise StudyError(f"the character U+{error.character:04X} cannot be in YAML", where=f"{file}:{line}", hint="delete it") from None
    try:
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        if node is None:
            raise StudyError("the file is empty", where=file, hint="start from studies/quickstart.yaml")
        if not isinstance(node, yaml.MappingNode):
            raise StudyError("a study is a mapping of names to values", where=f"{file}:1", hint="start with `question: ...`")
        _walk(node, (), lines, (), file)
        values: dict[str, Any] = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        problem = error.problem or "not YAML"
        hint = None
        if "\\t" in problem or (mark and "\t" in text.splitlines()[min(mark.line, len(text.splitlines()) - 1)]):
            problem, hint = "a tab: YAML is indented with spaces", "replace tabs by two spaces"
        raise StudyError(problem, where=f"{file}:{line}", hint=hint) from None
    except yaml.YAMLError as error:
        raise StudyError(f"not YAML: {error}", where=file) from None
    except (ValueError, OverflowError) as error:
        raise StudyError(f"a value cannot be read: {error}", where=file) from None
    finally:
        loader.dispose()
    return Document(values, lines, path)


def _walk(node: yaml.Node, place: Place, lines: dict[Place, int], above: tuple[int, ...], file: str) -> None:
    """Note the line of every field, and refuse what YAML lets through."""
    line = node.start_mark.line + 1
    if id(node) in above:
        raise StudyError("an alias contains itself: the file would never end", where=f"{file}:{line} {'.'.join(map(str, place))}")
    lines.setdefault(place, line)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise StudyError("a name must be plain text", where=f"{file}:{key_line}")
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise StudyError(
                    "`<<` is not used here: a study has no inheritance", where=f"{file}:{key_line}", hint="write the fields out"
                )
            key = key_node.value
            if key_node.tag != "tag:yaml.org,2002:str":
                key_node.tag = "tag:yaml.org,2002:str"  # A level named 8 or true is a name all the same.
            if key in seen:
                raise StudyError(
                    f"{key!r} is there twice (first in line {seen[key]})", where=f"{file}:{key_line}", hint="give one of them another name"
                )
            seen[key] = key_line
            lines[(*place, key)] = key_line
            _walk(value_node, (*place, key), lines, (*above, id(node)), file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*place, index), lines, (*above, id(node)), file)
