"""The index: the recipes of all stored objects, quickly. A cache beside the objects, never a source of truth.

It owns `index.jsonl`. What is in it and not on the disk is dropped; what is on the disk and not in it is read from its manifest. A
damaged manifest is left out and named in `damaged`.

    recipes = Index.load(store)
    recipes.recipe(key)
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from campana.core.keys import Recipe
from campana.core.manifest import Manifest
from campana.core.store import Store
from campana.errors import StoreError
from campana.journal import Journal

NAME = "index.jsonl"
SCHEMA = "campana.index/1"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the plan needs to know of a stored object."""

    key: str
    kind: str
    label: str
    created: str
    code: str
    recipe: Recipe


class Index:
    """Key -> entry, of all built objects."""

    def __init__(self, entries: Mapping[str, Entry], damaged: tuple[str, ...] = ()) -> None:
        self.entries = entries
        self.damaged = damaged
        """Keys whose manifests cannot be read."""

    @classmethod
    def load(cls, store: Store) -> Index:
        """Read the cache, bring it up to date with the disk, and write it back where that changed it."""
        cached = _read(store)
        present = list(store.built_keys())
        entries: dict[str, Entry] = {}
        damaged: list[str] = []
        for key in present:
            try:
                entries[key] = cached.get(key) or _entry(store.manifest(key))
            except StoreError:
                damaged.append(key)
        if entries.keys() != cached.keys():
            _write(store, entries.values())
        return cls(entries, tuple(damaged))

    def recipe(self, key: str) -> Recipe | None:
        """The recipe of a stored object, or None."""
        entry = self.entries.get(key)
        return entry.recipe if entry is not None else None

    @cached_property
    def by_label(self) -> dict[tuple[str, str], list[Entry]]:
        """(kind, label) -> entries, newest first."""
        return self._grouped(lambda entry: (entry.kind, entry.label))

    @cached_property
    def by_kind(self) -> dict[str, list[Entry]]:
        """Kind -> entries, newest first."""
        return self._grouped(lambda entry: entry.kind)

    def _grouped(self, name_of: Any) -> dict[Any, list[Entry]]:
        groups: dict[Any, list[Entry]] = {}
        for entry in sorted(self.entries.values(), key=lambda entry: (entry.created, entry.key), reverse=True):
            groups.setdefault(name_of(entry), []).append(entry)
        return groups


def _entry(manifest: Manifest) -> Entry:
    return Entry(manifest.key, manifest.kind, manifest.label, manifest.created, manifest.code, manifest.recipe)


def _read(store: Store) -> dict[str, Entry]:
    rows = Journal(store.root / NAME).rows()
    if not rows or rows[0].get("schema") != SCHEMA:
        return {}
    with contextlib.suppress(KeyError):
        return {row["key"]: Entry(**{name: row[name] for name in Entry.__slots__}) for row in rows[1:]}
    return {}


def _write(store: Store, entries: Iterable[Entry]) -> None:
    lines = [json.dumps({"schema": SCHEMA}), *(json.dumps(asdict(entry), ensure_ascii=False) for entry in entries)]
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
        fresh = store.root / f".{NAME}.{os.getpid()}"
        fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
        fresh.replace(store.root / NAME)
