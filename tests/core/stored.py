"""Helpers of the engine's tests: stages in a line, and objects in a store without running anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from engine_kinds import Grow

from campana.core.graph import in_order
from campana.core.keys import recipe
from campana.core.spec import Source, Stage
from campana.core.store import Store


def grow(text: str, *inputs: Stage, **fields: object) -> Stage:
    """A stage named for its text, with the other stages as inputs by their labels."""
    given: dict[str, Stage | Source] = {each.label: each for each in inputs}
    return Stage(Grow.model_validate({"text": text, **fields}), given, label=text)


def put(store: Store, *targets: Stage, seconds: float = 1.5) -> None:
    """Publish the targets and all they need, each with one small file."""
    for stage in in_order(targets):
        if not store.has(stage.key):
            publish(store, stage, seconds)


def publish(store: Store, stage: Stage, seconds: float = 1.5) -> None:
    """One try of one stage."""
    lock = store.lock(stage.key)
    assert lock is not None
    with lock:
        store.settle(stage.key)
        if store.has(stage.key):
            return
        out_dir, _ = store.begin(stage.key)
        (out_dir / "text.txt").write_text(stage.label)
        (out_dir / "sub").mkdir()
        (out_dir / "sub" / "deep.txt").write_text("deep")
        store.publish(stage.key, recipe=recipe(stage), label=stage.label, execution={}, meter={"tokens": 3}, seconds=seconds)


KILLED = 9
_left: list[int] = []
"""How many file operations this process may still do; empty: any number. Only ever filled in a forked child."""


def _audit(event: str, _: tuple[object, ...]) -> None:
    if _left and event.startswith(("os.", "open", "shutil.", "fcntl.")):
        _left[0] -= 1
        if _left[0] < 0:
            os._exit(KILLED)


sys.addaudithook(_audit)


def dies_before(operation: int, work: Callable[[], None]) -> bool:
    """Do the work in a forked process that dies before its so-manieth file operation. False: it ended before it came to that."""
    pid = os.fork()
    if pid == 0:
        _left.append(operation)
        work()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, KILLED)
    return os.waitstatus_to_exitcode(status) == KILLED


def tree(folder: Path) -> dict[str, bytes]:
    """Relative name -> content of all files below."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
