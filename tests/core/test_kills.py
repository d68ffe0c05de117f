"""Kills, signals and failures: the same call goes on, nothing is built twice, and the end is that of an undisturbed run."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_script import study
from stored import tree

from campana.core.graph import by_key, descendants
from campana.core.runner import run
from campana.core.store import Store
from campana.core.verify import verify
from campana.executors import Inline

HERE = Path(__file__).parent
LABELS = ["root", "arm0", "arm1", "arm2", "pair0", "pair1", "report"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def launch(store: Store, tally: Path, seconds: float, how: str = "prefork") -> subprocess.Popen[str]:
    argv = [sys.executable, str(HERE / "run_script.py"), str(store.root), str(tally), str(seconds), how]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> dict[str, object]:
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    return json.loads(stdout)


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def has_begun(store: Store, num_steps: int = 2) -> bool:
    """Whether some stage works and has journalled its first steps."""
    paths = list(store.root.glob("work/*/scratch/steps.jsonl"))
    return any(path.exists() and path.read_bytes().count(b"\n") >= num_steps for path in paths)


def contents(store: Store) -> dict[str, dict[str, bytes]]:
    return {key: tree(store.path(key)) for key in store.built_keys()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    assert run([study()], store, Inline()).is_complete
    return contents(store)


@settings(deadline=None, max_examples=12)
@given(faults=st.dictionaries(st.sampled_from(LABELS), st.sampled_from(["fail", "refuse", "forget", "link", "nan"]), max_size=4))
def test_under_failures_a_rerun_reaches_the_same_end(undisturbed: dict[str, dict[str, bytes]], faults: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "faults").mkdir()
        for label, fault in faults.items():
            (folder / "faults" / label).write_text(fault)
        store = Store(folder / "store")
        target = study(str(folder / "tally"), faults=str(folder / "faults"))
        stages = by_key([target])
        for _ in range(len(faults) + 1):
            result = run([target], store, Inline())
            lost = set[str]().union(*(descendants(stages, key) for key in result.failed))
            assert set(result.blocked) == lost
            assert set(result.built) | set(result.reused) | set(result.failed) | lost == set(stages)
        assert result.is_complete
        assert contents(store) == undisturbed
        built = Counter(attempt.outcome for key in stages for attempt in store.attempts(key))
        assert built == {"built": 7} | ({"failed": len(faults)} if faults else {})


@pytest.mark.parametrize("how", ["prefork", pytest.param("fresh", marks=pytest.mark.slow)])
def test_ctrl_c_stops_the_children_and_the_same_call_goes_on(store: Store, tmp_path: Path, how: str) -> None:
    first = launch(store, tmp_path / "tally", 0.4, how)
    wait_for(lambda: has_begun(store))
    first.send_signal(signal.SIGINT)
    stdout, stderr = first.communicate(timeout=60)
    assert first.returncode == 0, stderr
    told = [line.split() for line in stderr.splitlines() if not line.startswith("started")]
    assert [word for word, _ in told] == ["stopping", "interrupted"], "it says so before it waits for them"
    assert told[0][1] == told[1][1] != "0"
    result = json.loads(stdout)
    assert result["interrupted"] is True
    assert result["failed"] == {}
    assert not any(store.is_running(key) for key in store.work_keys())
    killed = [attempt for key in store.work_keys() for attempt in store.attempts(key)]
    assert [attempt.outcome for attempt in killed] == ["killed"] * len(killed)
    assert killed
    assert killed[0].error == "interrupted"

    assert ended(launch(store, tmp_path / "tally", 0.0))["interrupted"] is False
    assert Counter((tmp_path / "tally").read_text().split()) == dict.fromkeys(LABELS, 1)
    assert max(store.manifest(key).meter["resumed"] for key in store.built_keys()) >= 2, "the journal of the first try was given back"


def test_a_killed_run_takes_its_workers_with_it(store: Store, tmp_path: Path) -> None:
    first = launch(store, tmp_path / "tally", 30.0)
    wait_for(lambda: has_begun(store))
    (key,) = store.work_keys()
    assert store.is_running(key)
    first.kill()
    first.communicate()
    wait_for(lambda: not store.is_running(key), 5.0)
    (attempt,) = store.attempts(key)
    assert attempt.outcome == "killed"
    assert 0 <= attempt.seconds < 20
    assert ended(launch(store, tmp_path / "tally", 0.0))["failed"] == {}
    assert [attempt.outcome for attempt in store.attempts(key)] == ["killed", "built"]


def test_a_killed_worker_is_a_failure_that_says_so(store: Store, tmp_path: Path) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "arm1").write_text("die")
    target = study(faults=str(tmp_path / "faults"))
    from campana.executors import Local

    with Local() as executor:
        result = run([target], store, executor)
        ((key, error),) = result.failed.items()
        assert error.startswith("killed by SIGKILL\nhint: was the machine out of memory?")
        assert len(result.built) == 3, "root and the other arms"
        assert set(result.blocked) == descendants(by_key([target]), key)
        assert run([target], store, executor).is_complete


def test_two_runs_at_once_build_everything_once(store: Store, tmp_path: Path, undisturbed: dict[str, dict[str, bytes]]) -> None:
    both = [launch(store, tmp_path / "tally", 0.05, how) for how in ("prefork", "fresh")]
    results = [ended(process) for process in both]
    assert Counter((tmp_path / "tally").read_text().split()) == dict.fromkeys(LABELS, 1)
    assert sum(len(result["built"]) for result in results) == 7  # type: ignore[arg-type, misc]  # JSON
    assert all(not result["failed"] and not result["interrupted"] for result in results)
    assert contents(store) == undisturbed


def test_a_run_takes_over_from_a_dead_one(store: Store, tmp_path: Path) -> None:
    first = launch(store, tmp_path / "tally", 30.0)
    wait_for(lambda: has_begun(store))
    second = launch(store, tmp_path / "tally", 0.0)
    time.sleep(0.5)
    assert second.poll() is None, "it waits for the live one"
    first.kill()
    first.communicate()
    assert len(ended(second)["built"]) == 7  # type: ignore[arg-type]  # JSON


def kill_something(process: subprocess.Popen[str], dice: random.Random) -> None:
    """SIGKILL the run, its server, or one of its workers."""
    mine = [process.pid]
    for pid in mine:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        mine += [int(child) for child in children.read_text().split()] if children.exists() else []
    with contextlib.suppress(ProcessLookupError):
        os.kill(dice.choice(mine), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_under_random_kills_a_rerun_reaches_the_same_end(
    store: Store, tmp_path: Path, undisturbed: dict[str, dict[str, bytes]], seed: int
) -> None:
    dice = random.Random(seed)
    for _ in range(8):
        process = launch(store, tmp_path / "tally", 0.3, dice.choice(["prefork", "fresh"]))
        time.sleep(dice.uniform(0.3, 3.0))
        kill_something(process, dice)
        process.communicate(timeout=60)
        assert {damage.key for damage in verify(store)} == set()
    assert ended(launch(store, tmp_path / "tally", 0.0))["failed"] == {}
    assert contents(store) == undisturbed
    outcomes = Counter(attempt.outcome for key in store.built_keys() for attempt in store.attempts(key))
    assert outcomes["built"] == 7
    assert outcomes["failed"] == 0 or outcomes["killed"] > 0
