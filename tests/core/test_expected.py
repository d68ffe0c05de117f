"""What a stage was predicted to take: it gets that much memory, and it is recorded with the stage and in no key."""

from __future__ import annotations

from pathlib import Path

from stored import grow, publish, put

from campana.core.observer import Built, Event, Started
from campana.core.plan import make_plan
from campana.core.runner import run
from campana.core.spec import Expected, Resources, Stage
from campana.core.store import Store
from campana.core.task import Task
from campana.executors import Inline, Local


def test_a_prediction_is_recorded_and_moves_no_key(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    a, b = grow("a"), grow("b")
    told = Expected(seconds=1.5, memory_bytes=1000, disk_bytes=10, calibration="x")
    run([a, b], store, Inline(), expected={a.key: told})
    assert store.manifest(a.key).execution["expected"]["seconds"] == 1.5
    assert "expected" not in store.manifest(b.key).execution
    task = Task.of(a, store.root, Resources(), told)
    task.write(tmp_path / "task.json")
    assert Task.read(tmp_path / "task.json") == task


def test_stages_are_packed_by_the_memory_that_they_are_predicted_to_need(tmp_path: Path) -> None:
    small, large = Resources(cores=1, memory_bytes=1), Resources(cores=2, memory_bytes=100)

    def together(expected: dict[str, Expected], folder: str) -> int:
        stages = [Stage(grow(text).spec, {}, small, text) for text in ("a", "b")]
        now, most = 0, 0

        def watch(event: Event) -> None:
            nonlocal now, most
            now += isinstance(event, Started) - isinstance(event, Built)
            most = max(most, now)

        with Local(prefork=False) as executor:
            run(stages, Store(tmp_path / folder), executor, watch, large, expected=expected)
        return most

    a, b = (Stage(grow(text).spec, {}, small, text) for text in ("a", "b"))
    assert together({}, "unknown") == 2
    assert together({a.key: Expected(memory_bytes=60), b.key: Expected(memory_bytes=60)}, "known") == 1
    assert together({a.key: Expected(memory_bytes=60), b.key: Expected()}, "partly") == 2


def test_a_brief_reason_is_short_and_the_full_one_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def named(letter: str) -> list[Stage]:
        return [Stage(grow(letter * 64, rate=k + 1.0).spec, {}, label=f"in{k}") for k in range(5)]

    put(store, grow("all", *named("a")))
    entry = next(entry for entry in make_plan([grow("all", *named("b"))], store).entries if entry.stage.label == "all")
    assert entry.brief.endswith("; and 3 more")
    assert "text: aaaaaaaa -> bbbbbbbb" in entry.brief
    assert entry.reason.count("input in") == 5
    publish(store, Stage(grow("x" * 200).spec, {}, label="long"))
    (entry,) = make_plan([Stage(grow("y" * 200).spec, {}, label="long")], store).entries
    assert len(entry.brief) < 120 < len(entry.reason)
