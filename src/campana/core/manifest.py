"""The manifest: what a stored object is, how it came to be, and what its files hold. Written last, never changed.

It owns the schema `campana.manifest/1`, which is readable for ever. It holds no absolute path: a moved store stays whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from campana.core.canon import canonical
from campana.core.disk import read_json
from campana.core.keys import Recipe
from campana.errors import StoreError, StudyError

SCHEMA = "campana.manifest/1"
NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class File:
    """One stored file."""

    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is known of a stored object."""

    key: str
    recipe: Recipe
    """What the key is the hash of; inputs by their keys."""
    kind: str
    version: int
    label: str
    """What the first study that built it called it."""
    execution: Mapping[str, Any]
    """How it was run: fields of the role `EXECUTION`, by path, and the resources. Not in the key."""
    files: Mapping[str, File]
    """Relative name -> content."""
    meter: Mapping[str, Any]
    """What `run` measured of itself."""
    seconds: float
    """Wall clock of the attempt that succeeded; earlier ones are in the attempts log."""
    created: str
    """UTC, ISO 8601."""
    campana: str
    """The version of campana that built it."""
    code: str
    """Advisory: a digest of the modules that declare the spec's parts, without comments and layout."""
    machine: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The form on disk, with a digest of itself: a manifest has no other to vouch for it."""
        value = {"schema": SCHEMA, **asdict(self)}
        return {**value, "digest": _digest(value)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> Manifest:
        """Read the form on disk. Fields that a later version added are passed over; another schema is an error."""
        found = value.get("schema")
        if found == SCHEMA and value.get("digest") != _digest({name: item for name, item in value.items() if name != "digest"}):
            raise StoreError("damaged: it is not what was written", where=where, hint="campana verify --repair")
        if found != SCHEMA:
            raise StoreError(f"a manifest of schema {found!r}, not {SCHEMA!r}", where=where, hint="use the campana that wrote this store")
        try:
            files = {name: File(str(file["sha256"]), int(file["size"])) for name, file in value["files"].items()}
            fields = {name: value[name] for name in cls.__slots__ if name != "files"}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreError(f"damaged: {type(error).__name__} {error}", where=where, hint="campana verify --repair") from error
        return cls(files=files, **fields)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of an object's folder. `FileNotFoundError` where there is none."""
        return cls.from_json(read_json(folder / NAME), where=f"{folder.name[:12]}/{NAME}")


def _digest(value: Mapping[str, Any]) -> str:
    with contextlib.suppress(StudyError):
        return hashlib.sha256(canonical(value)).hexdigest()
    return ""


@cache
def campana_version() -> str:
    """The installed version; `unknown` where the package is not installed."""
    try:
        return version("campana")
    except PackageNotFoundError:
        return "unknown"


@cache
def machine_facts() -> dict[str, Any]:
    """What of this machine may explain a duration. No names of hosts or people."""
    return {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count() or 1, "python": platform.python_version()}


def utc(seconds: float | None = None) -> str:
    """ISO 8601 of a time since the epoch, or of now."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
