"""The runner: order, limits, failures, and one build a key."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import grow

from campana.core.observer import Blocked, Built, Failed, Planned, Progressed, Recorder, Reused, Started
from campana.core.runner import run
from campana.core.store import Store
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
