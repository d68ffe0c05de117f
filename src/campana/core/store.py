"""The store: key -> a read-only folder with a manifest. A folder exists exactly where it is complete.

    store.json                what this folder is
    objects/ab/<key>/         manifest.json and files/: what a stage wrote. Never changed
    work/<key>/               the try that is going on: object/files, scratch/, log.txt; a note of the last failure
    attempts/<key>.jsonl      every try and its cost
    runs/<name>/*.json        which keys a study needs: what `gc` keeps
    locks/, quarantine/       flocks of living processes; damaged objects set aside

It owns this layout and how an object comes to be. There are no status files: built is that the object is there, running is that
its lock is held. It refuses to overwrite. It never waits.

    store = Store(Path(".campana"))
    if store.has(key): rows = (store.path(key) / "answers.jsonl").open()
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from campana.core.attempts import Attempt, Attempts
from campana.core.disk import disk_errors, files_below, read_json, remove_folder, sha256_file, sync_file, sync_folder, write_json
from campana.core.keys import Recipe, hash_recipe
from campana.core.lock import KeyLock
from campana.core.manifest import NAME, File, Manifest, campana_version, machine_facts, utc
from campana.errors import StoreError, UserError

SCHEMA = "campana.store/1"
FORGET = "delete it, then run the studies that are to be kept: each writes its record anew"


class Store:
    """A folder of built stages. Opening it writes nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if root.exists() and not root.is_dir():
            raise StoreError("a store is a folder", where=str(root), hint="give another --store")
        with contextlib.suppress(FileNotFoundError):
            found = read_json(root / "store.json", hint=f'wrong: it should hold {{"schema": "{SCHEMA}"}}').get("schema")
            if found != SCHEMA:
                raise StoreError(f"a store of schema {found!r}, not {SCHEMA!r}", where=str(root), hint="use the campana that made it")

    # Reading

    def has(self, key: str) -> bool:
        """Whether the key is built."""
        return (self.object_dir(key) / NAME).is_file()

    def path(self, key: str) -> Path:
        """The folder with what the stage wrote. An error where the key is not built."""
        if not self.has(key):
            raise StoreError(f"{key[:12]} is not built", where=str(self.root), hint="campana run STUDY builds it")
        return self.object_dir(key) / "files"

    def manifest(self, key: str) -> Manifest:
        """What the object is. An error where the key is not built, or its manifest is damaged."""
        try:
            return Manifest.read(self.object_dir(key))
        except FileNotFoundError:
            raise StoreError(f"{key[:12]} is not built", where=str(self.root), hint="campana run STUDY builds it") from None

    def built_keys(self) -> Iterator[str]:
        """The keys of all built objects, in order."""
        for shelf in sorted(_names(self.root / "objects")):
            yield from (name for name in sorted(_names(self.root / "objects" / shelf)) if self.has(name))

    def work_keys(self) -> list[str]:
        """The keys that have something in `work/`: they are being built, or a try ended before its time."""
        return sorted(_names(self.root / "work"))

    def object_dir(self, key: str) -> Path:
        """Where the object lies or would lie."""
        return self.root / "objects" / key[:2] / key

    def work_dir(self, key: str) -> Path:
        """Where a try works."""
        return self.root / "work" / key

    def is_running(self, key: str) -> bool:
        """Whether a living process builds the key now."""
        return KeyLock.is_held(self._lock_path(key))

    def attempts(self, key: str) -> list[Attempt]:
        """Every ended try, oldest first; one that was killed and not yet settled is among them."""
        log = self._attempts(key)
        ended = log.all()
        opened = log.unsettled()
        if opened is None or self.is_running(key) or any(attempt.started == opened.started for attempt in ended):
            return ended
        return [*ended, opened if not self.has(key) else Attempt(opened.started, self.manifest(key).seconds, "built", "", opened.host)]

    def wasted_seconds(self, key: str) -> float:
        """What failed and killed tries of the key cost."""
        return sum(attempt.seconds for attempt in self.attempts(key) if attempt.outcome != "built")

    def failure(self, key: str) -> str | None:
        """Why the last try failed, where it did."""
        ended = self.attempts(key)
        return ended[-1].error if ended and ended[-1].outcome == "failed" else None

    # Building

    def lock(self, key: str) -> KeyLock | None:
        """The right to build a key, or None at once where a living process has it."""
        self._make()
        with disk_errors(self.root):
            return KeyLock.acquire(self._lock_path(key))

    def adopt_lock(self, key: str, descriptor: int) -> KeyLock:
        """The lock of a key that came as an open descriptor from the process that took it."""
        return KeyLock.adopt(self._lock_path(key), descriptor)

    def in_use(self) -> KeyLock | None:
        """The shared lock of a run: while it is held, `gc` deletes nothing. None while `gc` deletes."""
        self._make()
        with disk_errors(self.root):
            return KeyLock.acquire(self.root / "locks" / "store", shared=True)

    def for_sweeping(self) -> KeyLock | None:
        """The lock of `gc`; None while a run goes on."""
        self._make()
        with disk_errors(self.root):
            return KeyLock.acquire(self.root / "locks" / "store")

    def begin(self, key: str) -> tuple[Path, Path]:
        """Open a try: an empty folder for what the stage writes, and the scratch folder of earlier tries. Needs the key's lock."""
        work = self.work_dir(key)
        with disk_errors(work):
            remove_folder(work / "object")
            out_dir, scratch_dir = work / "object" / "files", work / "scratch"
            out_dir.mkdir(parents=True)
            scratch_dir.mkdir(exist_ok=True)
            self._attempts(key).begin()
        return out_dir, scratch_dir

    def touch(self, key: str) -> None:
        """A sign of life of the try that is going on."""
        self._attempts(key).touch()

    def fail(self, key: str, seconds: float, error: str) -> None:
        """End the open try as failed. The note never blocks the next try. Needs the key's lock."""
        with disk_errors(self.root):
            self._attempts(key).end("failed", seconds, error)

    def settle(self, key: str, error: str = "killed") -> None:
        """Clear up after a try whose process is gone. Needs the key's lock."""
        built_seconds = self.manifest(key).seconds if self.has(key) else None
        with disk_errors(self.root):
            self._attempts(key).settle(error, built_seconds)
            if built_seconds is not None:
                remove_folder(self.work_dir(key))

    def publish(
        self,
        key: str,
        *,
        recipe: Recipe,
        label: str,
        execution: Mapping[str, Any],
        meter: Mapping[str, Any],
        seconds: float,
        code: str = "",
    ) -> Manifest:
        """Make what lies in the try's `object/files` the object of the key: hash, fsync, manifest last, one rename. Needs the key's lock.

        A kill at any moment leaves the object whole or not there. Raises `StoreError` on a full or read-only disk, and
        `UserError` where the stage left something that is not a plain file.
        """
        staged = self.work_dir(key) / "object"
        if hash_recipe(recipe) != key:
            raise StoreError(f"the recipe is not that of {key[:12]}", where=str(staged))
        with disk_errors(staged):
            files = {path.relative_to(staged / "files").as_posix(): _seal(path, staged) for path in files_below(staged / "files")}
            for folder in (path for path in staged.rglob("*") if path.is_dir()):
                sync_folder(folder)
            manifest = Manifest(
                key=key,
                recipe=recipe,
                kind=str(recipe["part"]),
                version=int(recipe["version"]),
                label=label,
                execution=execution,
                files=files,
                meter=meter,
                seconds=seconds,
                created=utc(),
                campana=campana_version(),
                code=code,
                machine=machine_facts(),
            )
            write_json(staged / NAME, manifest.as_json(), durable=False)
            sync_file(staged / NAME)
            sync_folder(staged)
            target = self.object_dir(key)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir() and not self.has(key):  # the remains of an object that lost its manifest
                self.set_aside(key)
            _rename(staged, target)
            sync_folder(target.parent)
            self._attempts(key).end("built", seconds)
            remove_folder(self.work_dir(key))
        return manifest

    def set_aside(self, key: str) -> Path:
        """Move a damaged object into `quarantine/`, so that the next run builds it again. Needs the key's lock."""
        with disk_errors(self.root):
            shelf = self.root / "quarantine"
            shelf.mkdir(parents=True, exist_ok=True)
            target = shelf / f"{key}-{time.time_ns()}"
            _rename(self.object_dir(key), target)
        return target

    def remove(self, key: str) -> None:
        """Delete an object, its try and its attempts: first out of sight by one rename. Needs the key's lock."""
        with disk_errors(self.root):
            if self.object_dir(key).is_dir():
                discard(self.set_aside(key))
            remove_folder(self.work_dir(key))
            (self.root / "attempts" / f"{key}.jsonl").unlink(missing_ok=True)

    # Runs

    def record_run(self, name: str, keys: Iterable[str], **facts: Any) -> Path:
        """Note which keys a run needs, before it starts; `gc` keeps them. The same keys again renew the same record.

        Of the facts, `study` says where the study's file lies: two files of one name are two studies.
        """
        named = sorted(set(keys))
        self._make()
        with disk_errors(self.root):
            folder = self.root / "runs" / _safe(name)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{hash_recipe({'keys': named, **({'study': facts['study']} if 'study' in facts else {})})[:16]}.json"
            write_json(path, {"schema": "campana.run/1", "name": name, "created": utc(), "keys": named, **facts})
        return path

    def runs(self) -> dict[str, list[dict[str, Any]]]:
        """Run name -> its records, oldest first. A damaged record is an error: what it named is not known."""
        found: dict[str, list[dict[str, Any]]] = {}
        for (name, _), records in self.runs_by_study().items():
            found.setdefault(name, []).extend(records.values())
        return found

    def runs_by_study(self) -> dict[tuple[str, str], dict[Path, dict[str, Any]]]:
        """(Run name, where its study lies) -> file -> its record, oldest first.

        A record says when it was made, to the second; the file's time, which a copy of the store may lose, only tells those of one second
        apart.
        """
        found: dict[tuple[str, str], dict[Path, dict[str, Any]]] = {}
        for folder in sorted(_names(self.root / "runs")):
            paths = [path for path in (self.root / "runs" / folder).glob("*.json") if not path.name.startswith(".")]
            records = {path: _read_run(path) for path in paths}
            for path in sorted(paths, key=lambda path: (records[path]["created"], path.stat().st_mtime_ns, path.name)):
                record = records[path]
                found.setdefault((folder, str(record.get("study", ""))), {})[path] = record
        return found

    def _make(self) -> None:
        """The root, at the first write."""
        path = self.root / "store.json"
        if not path.exists():
            with disk_errors(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                write_json(path, {"schema": SCHEMA})

    def _attempts(self, key: str) -> Attempts:
        return Attempts(self.root / "attempts" / f"{key}.jsonl", self.work_dir(key))

    def _lock_path(self, key: str) -> Path:
        return self.root / "locks" / key


def discard(folder: Path) -> None:
    """Delete an object that was set aside, its manifest last, so that a kill leaves what can be told apart from a loss."""
    remove_folder(folder / "files")
    remove_folder(folder)


def _seal(path: Path, staged: Path) -> File:
    if path.is_symlink() or not path.is_file():
        name = path.relative_to(staged / "files").as_posix()
        raise UserError(
            f"the stage left {name!r}, which is not a plain file", hint="copy what the link points at: links break when a store moves"
        )
    sync_file(path)
    return File(sha256_file(path), path.stat().st_size)


def _rename(source: Path, target: Path) -> None:
    """One rename. Never over an existing object."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise StoreError(
                "is there already", where=target.name, hint="two processes published one key: was a lock file deleted?"
            ) from error
        raise


def _read_run(path: Path) -> dict[str, Any]:
    record = read_json(path, hint=FORGET)
    keys = record.get("keys")
    if not isinstance(keys, list) or not all(isinstance(each, str) for each in [record.get("created"), *cast("list[object]", keys)]):
        raise StoreError("damaged: it does not say when the run was, or which keys it needs", where=str(path), hint=FORGET)
    return record


def _safe(name: str) -> str:
    """A run's name as a folder's name."""
    kept = "".join(char if char.isalnum() or char in "-_." else "-" for char in name).lstrip(".")
    return kept or "run"


def _names(folder: Path) -> Collection[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):  # a stray file among folders holds nothing of ours
        return []
