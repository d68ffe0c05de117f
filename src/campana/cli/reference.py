"""The reference pages, made from the docstrings of the specs: `python -m campana.cli.reference docs` writes them, `--check` compares.

One page for the study file, one for the registered kinds, one for the commands. Nothing in them is written by hand.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from campana.parts import ADDED, EXECUTION, GROUPS, known
from campana.study.readers import ReadCheckRecipe, ReaderRecipe, ReadRecipe, SpansRecipe
from campana.study.schema import (
    ArmRecipe,
    CheckRecipe,
    DataSet,
    GenerateRecipe,
    MeasureRecipe,
    Prices,
    Primary,
    Search,
    StudyFile,
    Suite,
    TuneRecipe,
)
from campana.tuning.options import Adafactor, AdamW, Schedule

HEAD = "<!-- Made by `make docs` from the docstrings in src/campana. Do not edit. -->\n"

SECTIONS: dict[type[BaseModel], str] = {
    StudyFile: "The file",
    ArmRecipe: "`base`: the recipe",
    TuneRecipe: "`base.tune`",
    Search: "`base.tune.lr` as a search",
    Schedule: "`base.tune.schedule`",
    AdamW: "`base.tune.optimizer`",
    Adafactor: "`base.tune.optimizer` with `kind: adafactor`",
    GenerateRecipe: "`base.generate`",
    CheckRecipe: "`base.check`",
    ReaderRecipe: "`base` in a study of readers",
    ReadRecipe: "`base.read`",
    SpansRecipe: "`base.read.spans`",
    ReadCheckRecipe: "`base.check` in a study of readers",
    Primary: "`primary`",
    DataSet: "`data.<name>`",
    Suite: "`suites.<name>`",
    MeasureRecipe: "`measure`",
    Prices: "`prices`",
}


def type_name(annotation: Any) -> str:
    """How a person would write the type of a field."""
    if annotation is type(None):
        return "null"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{arg}`" for arg in args)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(arg) for arg in args)
    if origin is tuple:
        return f"list of {type_name(args[0])}"
    if origin is not None and args and getattr(origin, "__name__", "") in ("Mapping", "dict"):
        return f"mapping to {type_name(args[1])}"
    if origin is not None and hasattr(annotation, "__metadata__"):
        return type_name(args[0])
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Any": "any"}
    return names.get(getattr(annotation, "__name__", ""), getattr(annotation, "__name__", str(annotation)))


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "`null`"
    if isinstance(value, BaseModel):
        return "see there"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (dict, tuple)) and not value:
        return "none"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def field_rows(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Name, type, default and meaning of every field that a person sets."""
    rows: list[tuple[str, str, str, str]] = []
    for name, info in model.model_fields.items():
        if name == "kind" and not get_args(info.annotation)[1:]:
            continue
        role = " (execution: not in the key)" if EXECUTION in info.metadata else " (added later)" if ADDED in info.metadata else ""
        rows.append((name, type_name(info.annotation), _default(info), " ".join((info.description or "").split()) + role))
    return rows


def _table(model: type[BaseModel]) -> Iterator[str]:
    rows = field_rows(model)
    if not rows:
        return
    yield "| field | type | default | what it says |"
    yield "|---|---|---|---|"
    for name, kind, default, said in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in (f"`{name}`", kind, default, said)) + " |"
    yield ""


def first_paragraph(part: type[BaseModel]) -> str:
    """The first paragraph of a class's docstring, as one line."""
    return (part.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ").replace("\n", " ")


def study_page() -> str:
    """The page of the study file's fields."""
    lines = [HEAD, "# The study file\n"]
    for model, title in SECTIONS.items():
        lines += [f"## {title}\n", first_paragraph(model) + "\n", *_table(model)]
    return "\n".join(lines).rstrip() + "\n"


def parts_page() -> str:
    """The page of all registered kinds."""
    lines = [
        HEAD,
        "# Kinds\n",
        "What a study can name, by group. `campana describe GROUP` prints the same for what is installed on your machine.\n",
    ]
    for group in GROUPS:
        lines.append(f"## {group}\n")
        for kind, part in known(group).items():
            if part.__module__.startswith("campana."):
                lines += [f"### {group} `{kind}`\n", first_paragraph(part) + "\n", *_table(part)]
    return "\n".join(lines).rstrip() + "\n"


def commands_page() -> str:
    """The page of the commands."""
    from campana.cli.app import app

    lines = [
        HEAD,
        "# Commands\n",
        "Exit codes: 0 all built, 1 something failed, 2 the study file or another input is wrong, 3 waiting for people.\n",
    ]
    for name, command in _commands(typer.main.get_command(app), ""):
        lines += [
            f"## campana {name}\n",
            " ".join((command.help or "").split()) + "\n",
            "| argument | default | what it says |",
            "|---|---|---|",
        ]
        for param in command.params:
            if param.name == "help":
                continue
            shown = ", ".join(param.opts) if param.param_type_name == "option" else (param.name or "").upper()
            default = "required" if param.required else "none" if param.default in (None, False) else str(param.default)
            lines.append(f"| `{shown}` | {default} | {' '.join((getattr(param, 'help', '') or '').split())} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: Any, before: str) -> Iterator[tuple[str, Any]]:
    """Each command by its whole name, those of groups too."""
    for name, command in sorted(group.commands.items()):
        whole = f"{before}{name}"
        if hasattr(command, "commands"):
            yield from _commands(command, whole + " ")
        else:
            yield whole, command


def pages() -> dict[str, str]:
    """Path below the docs folder -> text."""
    return {"reference/study-file.md": study_page(), "reference/kinds.md": parts_page(), "reference/commands.md": commands_page()}


def main(argv: list[str]) -> int:
    """Write the pages, or with `--check` say which are stale."""
    check = "--check" in argv
    docs_dir = Path(next(word for word in argv if not word.startswith("--")))
    stale: list[str] = []
    for name, text in pages().items():
        path = docs_dir / name
        if check:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(str(path))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"stale: {', '.join(stale)}\nhint: make docs\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
