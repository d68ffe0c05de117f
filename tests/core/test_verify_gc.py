"""Damage is found, said and mended; garbage is listed first, and what a run names or people made is never taken."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from engine_kinds import Annotate
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import grow, publish, put, tree

from campana.core.gc import plan_gc, sweep
from campana.core.plan import State, make_plan
from campana.core.runner import run
from campana.core.spec import Stage
from campana.core.store import Store
from campana.core.verify import verify
from campana.errors import StoreError
from campana.executors import Inline


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def flip(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damage_is_found_set_aside_and_built_again(store: Store) -> None:
    stage = grow("some text")
    report = grow("report", stage)
    run([report], store, Inline())
    whole = tree(store.path(stage.key))
    assert verify(store) == []

    flip(store.path(stage.key) / "text.txt")
    (store.path(stage.key) / "sub" / "length.json").unlink()
    (store.path(stage.key) / "extra").write_text("")
    found = verify(store)
    assert {(damage.path, damage.problem) for damage in found} == {
        ("text.txt", "changed"),
        ("sub/length.json", "missing"),
        ("extra", "unexpected"),
    }
    assert "text.txt: changed" in " ".join(map(str, found))

    assert all("quarantine/" in str(damage) for damage in verify(store, repair=True))
    assert not store.has(stage.key)
    assert run([stage], store, Inline()).built == (stage.key,)
    assert verify(store) == []
    assert tree(store.path(stage.key)) == whole


def test_a_damaged_manifest_is_named_by_plan_and_verify(store: Store) -> None:
    stage, other = grow("a"), grow("b")
    put(store, stage, other)
    flip(store.object_dir(stage.key) / "manifest.json")
    manifest = store.object_dir(other.key) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace('"rate": 1.0', '"rate": 2.0'))
    assert {(damage.key, damage.problem in ("damaged", "misfiled")) for damage in verify(store)} == {(stage.key, True), (other.key, True)}
    verify(store, repair=True)
    assert [entry.state for entry in make_plan([stage, other], store).entries] == [State.BUILD] * 2


def test_garbage_is_listed_with_its_cost_and_swept_on_demand(store: Store) -> None:
    kept, cheap, dear = grow("kept"), grow("cheap"), grow("dear")
    put(store, kept, cheap, seconds=1.0)
    put(store, dear, seconds=100.0)
    store.record_run("study", [kept.key])
    listed = plan_gc(store)
    assert [(each.label, each.seconds, each.what) for each in listed] == [("dear", 100.0, "object"), ("cheap", 1.0, "object")]
    assert all(store.has(stage.key) for stage in (kept, cheap, dear)), "listing deletes nothing"
    assert [each.label for each in plan_gc(store, keep=[dear.key])] == ["cheap"]

    using = store.in_use()
    assert using is not None
    with pytest.raises(StoreError, match="a run goes on"):
        sweep(store, listed)
    using.release_shared()

    store.record_run("late", [cheap.key])
    assert [each.label for each in sweep(store, listed)] == ["dear"], "what a run has named since it was listed is kept"
    assert [store.has(stage.key) for stage in (kept, cheap, dear)] == [True, True, False]
    assert store.attempts(dear.key) == []
    assert list((store.root / "quarantine").iterdir()) == []


def test_two_studies_of_one_name_are_forgotten_apart(store: Store) -> None:
    first, second = grow("first"), grow("second")
    put(store, first, second)
    store.record_run("study", [first.key], study="/a/study.yaml")
    store.record_run("study", [second.key], study="/b/study.yaml")
    assert plan_gc(store, last_runs=1) == []


def test_stray_files_are_no_objects(store: Store) -> None:
    stage = grow("one")
    put(store, stage)
    store.record_run("study", [stage.key])
    for folder in ("objects", "work", "runs", "quarantine"):
        (store.root / folder).mkdir(exist_ok=True)
        (store.root / folder / "notes.txt").write_text("mine")
    assert make_plan([stage], store).missing == ()
    assert plan_gc(store) == []
    assert verify(store) == []


def test_the_last_form_of_a_study_is_told_by_its_record_and_not_by_times_of_files(store: Store) -> None:
    old, new = grow("old"), grow("new")
    put(store, old, new)
    for stage, day, seconds in ((old, "01", 2), (new, "02", 1)):
        path = store.record_run("study", [stage.key])
        path.write_text(path.read_text().replace(json.loads(path.read_text())["created"], f"2026-01-{day}T00:00:00Z"))
        os.utime(path, (seconds, seconds))
    assert [each.label for each in plan_gc(store, last_runs=1)] == ["old"]


@pytest.mark.parametrize("record", [{}, {"keys": None}, {"keys": [1]}, {"keys": [], "created": None}])
def test_a_run_record_that_names_no_keys_is_damaged(store: Store, record: dict[str, object]) -> None:
    put(store, grow("one"))
    path = store.record_run("study", [])
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError, match="which keys") as caught:
        plan_gc(store)
    assert caught.value.where == str(path)


def test_earlier_forms_of_a_study_can_be_forgotten(store: Store) -> None:
    old, new = grow("old"), grow("new")
    put(store, old, new)
    store.record_run("study", [old.key])
    store.record_run("study", [new.key])
    assert plan_gc(store) == []
    listed = plan_gc(store, last_runs=1)
    assert [each.label for each in listed] == ["old"]
    assert sweep(store, listed, last_runs=1) == listed
    assert [record["keys"] for record in store.runs()["study"]] == [[new.key]]


def test_what_people_labelled_is_never_swept(store: Store) -> None:
    labels = Stage(Annotate(text="labels"), label="labels")
    publish(store, labels)
    damaged = Stage(Annotate(text="damaged"), label="damaged")
    publish(store, damaged)
    flip(store.path(damaged.key) / "text.txt")
    verify(store, repair=True)
    half = Stage(Annotate(text="half"), label="half", inputs={})
    from campana.core.spec import Resources
    from campana.core.task import Task

    Task.of(half, store.root, Resources()).write(store.work_dir(half.key) / "task.json")
    (store.work_dir(half.key) / "scratch").mkdir()
    assert plan_gc(store) == []


def test_what_a_try_left_behind_is_listed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "bad").write_text("fail")
    bad = grow("bad", faults=str(tmp_path / "faults"))
    assert run([bad], store, Inline()).failed
    (garbage,) = plan_gc(store)
    assert (garbage.what, garbage.label) == ("unfinished", "bad")
    lock = store.lock(bad.key)
    assert lock is not None
    assert plan_gc(store) == [], "a living try"
    lock.release()
    assert sweep(store, [garbage]) == [garbage]
    assert store.work_keys() == []


@settings(deadline=None, max_examples=12)
@given(named=st.sets(st.integers(0, 5)), kept=st.sets(st.integers(0, 5)), listed_before=st.booleans())
def test_gc_never_takes_what_a_run_names(named: set[int], kept: set[int], listed_before: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        stages = [grow(str(index)) for index in range(6)]
        put(store, *stages)
        early = plan_gc(store)
        store.record_run("study", [stages[index].key for index in named])
        keep = [stages[index].key for index in kept]
        swept = sweep(store, early if listed_before else plan_gc(store, keep), keep)
        assert {each.label for each in swept} == {str(index) for index in range(6) if index not in named | kept}
        assert {index for index in range(6) if store.has(stages[index].key)} == named | kept
