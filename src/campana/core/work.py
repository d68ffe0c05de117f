"""The work of one task: inputs, a try, `run`, checks, publishing. The same in a subprocess, in this process and under torchrun.

It owns what happens between a held lock and a published object, and how an error becomes words. It never starts processes.

    with store.lock(task.key) as lock:
        error = perform(task, Store(Path(task.store)), tell=print)   # None, or why it failed
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from campana.core.code import code_digest
from campana.core.digest import DigestCache, digest_path
from campana.core.disk import HINTS, as_store_error, write_json
from campana.core.spec import Context, StageSpec
from campana.core.store import Store
from campana.core.task import Task
from campana.core.verify import sound_path
from campana.errors import CampanaError, DataError, StageFailed

Tell = Callable[[Mapping[str, Any]], None]
"""Takes a notice as JSON: {"event": "progress", "done", "total", "unit", "figures"} or {"event": "failed", "error"}."""

BEAT_SECONDS = 1.0
"""Between two signs of life: what a killed try cost is known to within this."""
TELL_SECONDS = 0.5
"""Between two notices of progress."""
LOG_NAME = "log.txt"


class Throttle:
    """A stage's `progress`: passes on at most two notices a second, and always the last one."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._last = float("-inf")

    def __call__(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        """Tell the person, if it is time."""
        now = self._clock()
        if done < total and now - self._last < TELL_SECONDS:
            return
        self._last = now
        self._tell({"event": "progress", "done": done, "total": total, "unit": unit, "figures": figures})


def perform(task: Task, store: Store, tell: Tell, *, cache_dir: Path | None = None, raise_errors: bool = False) -> str | None:
    """Build the task's key, whose lock the caller holds. Returns None, or why it failed, in words for a person.

    The traceback of a failure goes to `work/<key>/log.txt`. `raise_errors` raises it instead, for a debugger. `cache_dir`: the
    context's.
    """
    start = time.monotonic()
    try:
        _build(task, store, tell, cache_dir)
    except Exception as error:
        message = _in_words(error, store, task)
        _log_traceback(store, task)
        fail(task, store, time.monotonic() - start, message, tell)
        if raise_errors:
            raise
        return message
    return None


def perform_rank(task: Task, store: Store, rank: int, tell: Tell, cache_dir: Path | None = None) -> bool:
    """One rank's part: the same `run` into the same folder, opened and published by rank 0. False where it failed.

    Why it failed is left for `core.ranks`, which has started the ranks and tells what became of them.
    """
    try:
        if rank == 0:
            _build(task, store, tell, cache_dir)
        else:
            _join(task, store, cache_dir)
            rank_mark(store, task, rank, "done").touch()
    except Exception as error:
        write_json(rank_mark(store, task, rank, "failed"), {"time": time.time(), "error": _in_words(error, store, task)}, durable=False)
        _log_traceback(store, task)
        return False
    return True


def fail(task: Task, store: Store, seconds: float, message: str, tell: Tell) -> None:
    """End the open try as failed, and say so."""
    with contextlib.suppress(CampanaError, OSError):  # on a full disk the note cannot be written; the message still goes out
        store.fail(task.key, seconds, message)
    tell({"event": "failed", "error": message})


def rank_mark(store: Store, task: Task, rank: int, word: str) -> Path:
    """Where a rank says that it is `done`, or why it has `failed`."""
    return store.work_dir(task.key) / f"rank-{rank}-{word}"


def _build(task: Task, store: Store, tell: Tell, cache_dir: Path | None) -> None:
    """Open a try, run it, and publish what it wrote."""
    start = time.monotonic()
    out_dir, scratch_dir = store.begin(task.key)
    with _beating(lambda: store.touch(task.key)):
        spec = task.load_spec()
        context = Context(_inputs(task, store), out_dir, scratch_dir, task.resources, Throttle(tell), cache_dir)
        with _sources_stay(task, store):
            meter = _run(task, spec, store, context)
        store.publish(
            task.key,
            recipe=task.recipe,
            label=task.label,
            execution=task.execution(spec),
            meter=meter,
            seconds=time.monotonic() - start,
            code=code_digest(spec),
        )


def _join(task: Task, store: Store, cache_dir: Path | None) -> None:
    """Run in the try that rank 0 opens."""
    work = store.work_dir(task.key)
    context = Context(
        inputs=_inputs(task, store),
        out_dir=work / "object" / "files",
        scratch_dir=work / "scratch",
        resources=task.resources,
        progress=lambda *_, **__: None,
        cache_dir=cache_dir,
    )
    while not context.out_dir.is_dir():
        time.sleep(0.02)
    task.load_spec().run(context)


def _run(task: Task, spec: StageSpec, store: Store, context: Context) -> Mapping[str, Any]:
    marks = [rank_mark(store, task, rank, "done") for rank in range(1, task.resources.ranks)]
    meter = spec.run(context)
    missing = [name for name in spec.outputs_to_check() if not (context.out_dir / name).exists()]
    if missing:
        raise StageFailed(f"the stage ended without writing {', '.join(missing)}", hint="this is a fault of the stage's code")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(meter), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StageFailed(f"what the stage measured is not JSON: {error}", hint="missing is None, never NaN") from error
    while not all(mark.exists() for mark in marks):  # torchrun ends us all where one fails
        time.sleep(0.02)
    return plain


def _log_traceback(store: Store, task: Task) -> None:
    with contextlib.suppress(OSError), (store.work_dir(task.key) / LOG_NAME).open("a", encoding="utf-8") as log:
        log.write(traceback.format_exc())


def _inputs(task: Task, store: Store) -> dict[str, Path]:
    """Input name -> path. A source must still be what it was when the study was planned, and a stage's files what it wrote."""
    paths: dict[str, Path] = {}
    for name, value in task.inputs.items():
        if "key" in value:
            paths[name] = sound_path(store, value["key"])
            continue
        path = Path(value["path"])
        if _has_changed(value, store):
            raise DataError("has changed since the study was planned", where=str(path), hint="run the same command again")
        paths[name] = path
    return paths


def _has_changed(source: Mapping[str, str], store: Store) -> bool:
    digest = source.get("whole", source["identity"])
    return digest.startswith("sha256:") and digest_path(Path(source["path"]), DigestCache(store.root)) != digest


@contextlib.contextmanager
def _sources_stay(task: Task, store: Store) -> Generator[None]:
    """A source that changes while the stage reads it fails the stage: what it wrote is not of the content that its key names."""
    try:
        yield
    except Exception:
        _require_unchanged(task, store)
        raise
    _require_unchanged(task, store)


def _require_unchanged(task: Task, store: Store) -> None:
    for value in task.inputs.values():
        if "path" in value and _has_changed(value, store):
            raise DataError("has changed while it was read", where=value["path"], hint="run the same command again")


def _in_words(error: Exception, store: Store, task: Task) -> str:
    if isinstance(error, CampanaError):
        return str(error)
    if isinstance(error, OSError) and error.errno in HINTS:
        return str(as_store_error(error, store.root))
    number = re.search(r"\(os error (\d+)\)", str(error))  # how Rust libraries (safetensors, tokenizers) tell an OSError
    if number is not None and int(number[1]) in HINTS:
        return str(as_store_error(OSError(int(number[1]), os.strerror(int(number[1]))), store.root))
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{text}\nhint: the traceback is in {store.work_dir(task.key) / LOG_NAME}"


@contextlib.contextmanager
def _beating(beat: Callable[[], None]) -> Generator[None]:
    """Give signs of life from a thread of its own until the block ends."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the folder goes when the object is published
                beat()

    thread = threading.Thread(target=loop, name="campana-beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
