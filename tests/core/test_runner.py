"""The runner: order, limits, failures, and one build a key."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
from collections.abc import Collection
from pathlib import Path

import pytest
from engine_kinds import Grow
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import grow

from campana.core.executor import Ended, Hear, Job, Notice
from campana.core.lock import KeyLock
from campana.core.observer import Blocked, Built, Event, Failed, Planned, Progressed, Recorder, Reused, Started
from campana.core.runner import run
from campana.core.spec import Resources, Stage
from campana.core.store import Store
from campana.core.task import Task
from campana.core.work import perform
from campana.errors import StoreError
from campana.executors import Inline, Local


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize("executor", [Inline(), Local(prefork=False), Local(prefork=True)], ids=["inline", "fresh", "prefork"])
def test_a_run_builds_what_is_missing_and_a_second_run_nothing(store: Store, executor: Inline | Local) -> None:
    a = grow("a")
    b, c = grow("b", a), grow("c", a)
    d = grow("d", b, c)
    seen = Recorder()
    first = run([d], store, executor, seen)
    assert first.is_complete, first
    assert set(first.built) == {a.key, b.key, c.key, d.key}
    assert (store.path(d.key) / "text.txt").read_text() == "d\nb\na\nc\na"
    assert seen.of(Started)[0].stage is a
    assert {event.unit for event in seen.of(Progressed)} == {"steps"}
    assert len(seen.of(Built)) == 4

    again = Recorder()
    second = run([d], store, executor, again)
    assert second.built == ()
    assert set(second.reused) == set(first.built)
    assert [type(event) for event in again.events] == [Planned, *[Reused] * 4]
    executor.close()


def test_a_failure_blocks_its_descendants_only(store: Store, tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / "bad").write_text("refuse")
    bad = grow("bad", faults=str(faults))
    good = grow("good")
    child, other = grow("child", bad), grow("other", good)
    seen = Recorder()
    result = run([child, other], store, Inline(), seen)
    assert set(result.built) == {good.key, other.key}
    assert result.failed == {bad.key: "data.jsonl:7: row 7 is wrong\nhint: mend row 7"}
    assert result.blocked == {child.key: bad.key}
    assert [event.by for event in seen.of(Blocked)] == [bad]
    assert len(seen.of(Failed)) == 1
    assert store.failure(bad.key) == result.failed[bad.key]

    assert run([child, other], store, Inline()).is_complete
    assert [attempt.outcome for attempt in store.attempts(bad.key)] == ["failed", "built"]


class Deferred:
    """An executor that builds one started task each time it is waited for: the runner's decisions without processes."""

    is_serial = False

    def __init__(self, dice: random.Random) -> None:
        self.started: list[tuple[Job, Hear, int]] = []
        self._dice = dice

    def start(self, job: Job, hear: Hear) -> None:
        self.started.append((job, hear, os.dup(job.lock_descriptor)))

    def wait(self, seconds: float) -> None:
        job, hear, descriptor = self.started.pop(self._dice.randrange(len(self.started)))
        task = Task.read(job.task_path)
        error = perform(task, Store(Path(task.store)), lambda row: hear(Notice(job.key, row)))
        os.close(descriptor)
        hear(Ended(job.key, 0 if error is None else 1))

    def stop(self, keys: Collection[str], *, at_once: bool) -> None:
        raise AssertionError("nothing was to be stopped")

    def close(self) -> None:
        assert not self.started


@settings(deadline=None, max_examples=15)
@given(
    needs=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.sets(st.integers(0, 6), max_size=2)), min_size=2, max_size=7),
    cores=st.integers(1, 4),
    memory=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_a_run_stays_within_the_machine_and_builds_inputs_first(
    needs: list[tuple[int, int, set[int]]], cores: int, memory: int, seed: int
) -> None:
    stages: list[Stage] = []
    for index, (stage_cores, stage_memory, below) in enumerate(needs):
        inputs = {f"in{each}": stages[each] for each in below if each < index}
        stages.append(Stage(Grow(text=str(index)), inputs, Resources(stage_cores, stage_memory), str(index)))
    running: set[str] = set()
    done: set[str] = set()

    def watch(event: Event) -> None:
        if isinstance(event, Started):
            assert {each.key for each in event.stage.inputs.values() if isinstance(each, Stage)} <= done
            running.add(event.stage.key)
            asked = [stage.resources for stage in stages if stage.key in running]
            assert sum(min(each.cores, cores) for each in asked) <= cores
            assert sum(min(each.memory_bytes, memory) for each in asked) <= memory
        if isinstance(event, Built):
            running.remove(event.stage.key)
            done.add(event.stage.key)

    with tempfile.TemporaryDirectory() as folder:
        result = run(stages, Store(Path(folder)), Deferred(random.Random(seed)), watch, Resources(cores, memory))
    assert result.is_complete
    assert sorted(result.built) == sorted({stage.key for stage in stages})


def test_a_finished_study_is_run_without_writing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    target = grow("b", grow("a"))
    run([target], store, Inline())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("mkdir", "open", "touch", "unlink", "rename"):
        monkeypatch.setattr(Path, name, refuse)
    assert len(run([target], store, Inline()).reused) == 2


def test_a_store_that_cannot_be_written_is_a_clear_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match=r"Read-only file system[\s\S]*give another store"):
        run([grow("a")], store, Inline())


def test_a_debugger_gets_the_error_as_it_was_raised(store: Store, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("fail")
    bad = grow("bad", faults=str(tmp_path))
    with pytest.raises(ZeroDivisionError, match="the test asked for it"):
        run([bad], store, Inline(raise_errors=True))
    assert [attempt.outcome for attempt in store.attempts(bad.key)] == ["failed"]
    assert run([bad], store, Inline()).is_complete


def test_inline_runs_a_stage_of_many_ranks_as_one(store: Store) -> None:
    stage = Stage(Grow(text="a"), resources=Resources(cores=2, ranks=2), label="a")
    assert run([stage], store, Inline()).is_complete
    assert store.manifest(stage.key).execution["resources"]["ranks"] == 1


def test_inline_sleeps_while_another_run_builds_what_it_needs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = grow("a")
    theirs = store.lock(stage.key)
    assert theirs is not None
    tries: list[str] = []
    lock = store.lock

    def tried(key: str) -> KeyLock | None:
        tries.append(key)
        return lock(key)

    monkeypatch.setattr(store, "lock", tried)
    threading.Timer(1.0, theirs.release).start()
    assert run([stage], store, Inline()).built == (stage.key,)
    assert len(tries) < 10


def test_ctrl_c_in_an_inline_stage_leaves_a_resumable_state(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = grow("a")
    handler = signal.getsignal(signal.SIGINT)  # a shell lets what it runs in the background ignore it

    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Grow, "_take_time", interrupted)
    result = run([stage], store, Inline())
    assert result.interrupted
    assert [attempt.outcome for attempt in store.attempts(stage.key)] == ["killed"]
    assert not store.is_running(stage.key)
    monkeypatch.undo()
    assert run([stage], store, Inline()).built == (stage.key,)
    assert signal.getsignal(signal.SIGINT) is handler, "the handlers are given back"
