"""The contract of executors, run over every one; and what the prefork server does when it cannot fork or dies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_kinds import Threaded
from stored import grow

from campana.core.executor import Ended, Executor, Job, Notice
from campana.core.spec import Resources, Stage
from campana.core.store import Store
from campana.core.task import Task
from campana.executors import Inline, Local

KINDS = {"inline": Inline, "fresh": lambda: Local(prefork=False), "prefork": lambda: Local(prefork=True)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(params=[*KINDS])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    made = KINDS[request.param]()
    yield made
    made.close()


@pytest.fixture
def processes(request: pytest.FixtureRequest) -> Iterator[Local]:
    with Local(prefork=request.param == "prefork") as made:
        yield made


class Ear:
    """Starts stages as the runner does, and hears what becomes of them."""

    def __init__(self, executor: Executor, store: Store) -> None:
        self.executor, self.store = executor, store
        self.heard: list[Notice | Ended] = []

    def start(self, stage: Stage) -> str:
        lock = self.store.lock(stage.key)
        assert lock is not None
        path = self.store.work_dir(stage.key) / "task.json"
        Task.of(stage, self.store.root, Resources()).write(path)
        self.executor.start(Job(stage.key, path, lock.descriptor, stage.spec.imports), self.heard.append)
        lock.hand_over()
        return stage.key

    def end(self, key: str, seconds: float = 30.0) -> int:
        deadline = time.monotonic() + seconds
        while True:
            codes = [news.exit_code for news in self.heard if isinstance(news, Ended) and news.key == key]
            if codes:
                assert len(codes) == 1
                return codes[0]
            assert time.monotonic() < deadline, "it does not end"
            self.executor.wait(0.1)

    def rows(self, key: str) -> list[str]:
        return [str(news.row["event"]) for news in self.heard if isinstance(news, Notice) and news.key == key]


def test_a_task_is_built_and_a_failing_one_says_why(executor: Executor, store: Store, tmp_path: Path) -> None:
    ear = Ear(executor, store)
    (tmp_path / "bad").write_text("refuse")
    good, bad = ear.start(grow("good")), ear.start(grow("bad", faults=str(tmp_path)))
    assert (ear.end(good), ear.end(bad)) == (0, 1)
    assert store.has(good)
    assert not store.has(bad)
    assert ear.rows(good)[:2] == ["progress", "progress"]
    assert ear.rows(bad) == ["progress", "failed"]
    told = next(news.row["error"] for news in ear.heard if isinstance(news, Notice) and news.row["event"] == "failed")
    assert told == "data.jsonl:7: row 7 is wrong\nhint: mend row 7"
    assert not store.is_running(good)
    assert isinstance([news for news in ear.heard if news.key == good][-1], Ended), "the end is told last"


@pytest.mark.parametrize("processes", ["fresh", "prefork"], indirect=True)
def test_the_lock_lives_as_long_as_the_process_and_stop_ends_both(processes: Local, store: Store) -> None:
    ear = Ear(processes, store)
    key = ear.start(grow("long", seconds=60))
    while not ear.rows(key):
        processes.wait(0.1)
    assert store.is_running(key)
    processes.stop([key], at_once=False)
    assert ear.end(key) == -signal.SIGTERM
    assert not store.is_running(key)
    processes.stop([key], at_once=True)  # that it is gone already is no error


@pytest.mark.parametrize("processes", ["fresh", "prefork"], indirect=True)
def test_a_stop_that_follows_the_start_at_once_is_not_lost(processes: Local, store: Store) -> None:
    ear = Ear(processes, store)
    for number in range(5):  # The first one also starts the server; the later ones are forked at once.
        key = ear.start(grow(str(number), seconds=60.0))
        processes.stop([key], at_once=False)
        assert ear.end(key) == -signal.SIGTERM


@pytest.mark.parametrize("processes", ["fresh", "prefork"], indirect=True)
def test_closing_ends_what_still_runs(processes: Local, store: Store) -> None:
    ear = Ear(processes, store)
    key = ear.start(grow("long", seconds=60))
    while not ear.rows(key):
        processes.wait(0.1)
    processes.close()
    deadline = time.monotonic() + 5
    while store.is_running(key):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_where_forking_would_be_unsound_a_fresh_interpreter_is_used(store: Store) -> None:
    with Local(prefork=True) as executor:
        ear = Ear(executor, store)
        key = ear.start(Stage(Threaded(text="a"), label="a"))
        assert ear.end(key) == 0
        assert store.has(key)


def test_a_server_that_dies_takes_its_tasks_and_later_ones_get_a_fresh_interpreter(store: Store) -> None:
    with Local(prefork=True) as executor:
        ear = Ear(executor, store)
        key = ear.start(grow("long", seconds=60))
        while not ear.rows(key):
            executor.wait(0.1)
        (server,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        os.kill(int(server), signal.SIGKILL)
        assert ear.end(key) == -signal.SIGKILL
        other = ear.start(grow("other"))
        assert ear.end(other) == 0
        assert store.has(other)
