"""The store: a folder exists exactly where it is complete, whatever happens to the process or the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stored import dies_before, grow, publish, put, tree

from campana.core.keys import recipe
from campana.core.lock import KeyLock
from campana.core.plan import State, make_plan
from campana.core.store import Store
from campana.core.verify import verify
from campana.errors import StoreError, UserError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_published_object(store: Store) -> None:
    stage = grow("a")
    assert not store.has(stage.key)
    publish(store, stage)
    path = store.path(stage.key)
    assert (path / "sub" / "deep.txt").read_text() == "deep"
    assert stat.S_IMODE((path / "text.txt").stat().st_mode) == 0o444
    manifest = store.manifest(stage.key)
    assert manifest.recipe == recipe(stage)
    assert (manifest.kind, manifest.label, manifest.seconds, manifest.meter) == ("test_grow", "a", 1.5, {"tokens": 3})
    assert manifest.files["text.txt"].size == 1
    assert str(store.root) not in (store.object_dir(stage.key) / "manifest.json").read_text()
    assert [attempt.outcome for attempt in store.attempts(stage.key)] == ["built"]
    assert list((store.root / "work").iterdir()) == []
    assert list((store.root / "locks").iterdir()) == []


def test_a_kill_at_any_moment_leaves_nothing_or_a_whole_object(tmp_path: Path) -> None:
    stage = grow("a")
    outcomes: set[tuple[str, ...]] = set()
    for operation in range(200):
        store = Store(tmp_path / str(operation))
        if not dies_before(operation, lambda store=store: publish(store, stage)):
            break
        if store.has(stage.key):
            assert verify(store, [stage.key]) == []
            store.manifest(stage.key)
        else:
            assert not store.object_dir(stage.key).exists()
        store.attempts(stage.key)
        publish(store, stage)
        assert verify(store) == []
        assert tree(store.path(stage.key)) == {"sub/deep.txt": b"deep", "text.txt": b"a"}
        assert list((store.root / "work").iterdir()) == []
        outcomes.add(tuple(attempt.outcome for attempt in store.attempts(stage.key)))
    else:
        pytest.fail("publishing does not end")
    assert operation > 20
    assert outcomes == {("built",), ("killed", "built")}


def test_a_moved_store_is_all_hits(store: Store, tmp_path: Path) -> None:
    report = grow("report", grow("a"), grow("b"))
    put(store, report)
    store.root.rename(tmp_path / "moved")
    plan = make_plan([report], Store(tmp_path / "moved"))
    assert [entry.state for entry in plan.entries] == [State.BUILT] * 3
    assert verify(Store(tmp_path / "moved")) == []


def test_a_killed_try_is_charged_to_its_last_sign_of_life(store: Store) -> None:
    stage = grow("a")
    lock = store.lock(stage.key)
    assert lock is not None
    store.begin(stage.key)
    started = store._attempts(stage.key).unsettled()  # the open try has no public reader: it is nobody's business
    assert started is not None
    os.utime(store.work_dir(stage.key) / "alive", (started.started + 42, started.started + 42))
    assert store.attempts(stage.key) == [], "it is running"
    lock.release()
    assert [(attempt.outcome, round(attempt.seconds)) for attempt in store.attempts(stage.key)] == [("killed", 42)]
    publish(store, stage)
    assert [attempt.outcome for attempt in store.attempts(stage.key)] == ["killed", "built"]
    assert round(store.wasted_seconds(stage.key)) == 42


def test_a_sign_of_life_while_the_work_folder_goes_is_no_hindrance(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = grow("a")
    remove = os.rmdir

    def slowly(*args: Any, **named: Any) -> None:
        with contextlib.suppress(OSError):
            store.touch(stage.key)
        remove(*args, **named)

    monkeypatch.setattr(os, "rmdir", slowly)
    publish(store, stage)
    assert store.has(stage.key)
    assert list((store.root / "work").iterdir()) == []


def test_scratch_survives_a_failed_try_and_goes_once_built(store: Store) -> None:
    stage = grow("a")
    with store.lock(stage.key):  # type: ignore[union-attr]  # nobody else holds it
        out_dir, scratch_dir = store.begin(stage.key)
        (scratch_dir / "checkpoint").write_text("step 5")
        (out_dir / "half").write_text("half")
        store.fail(stage.key, 2.0, "out of luck")
    assert store.failure(stage.key) == "out of luck"
    with store.lock(stage.key):  # type: ignore[union-attr]  # nobody else holds it
        out_dir, scratch_dir = store.begin(stage.key)
        assert (scratch_dir / "checkpoint").read_text() == "step 5"
        assert list(out_dir.iterdir()) == []
    publish(store, stage)
    assert store.failure(stage.key) is None


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the disk is read-only")])
def test_a_disk_that_cannot_be_written_is_a_clear_error(store: Store, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    stage = grow("a")

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=words):
        publish(store, stage)
    monkeypatch.undo()
    assert not store.has(stage.key)
    publish(store, stage)
    assert verify(store) == []


def test_links_are_refused(store: Store) -> None:
    stage = grow("a")
    with store.lock(stage.key):  # type: ignore[union-attr]  # nobody else holds it
        out_dir, _ = store.begin(stage.key)
        (out_dir / "link").symlink_to("/etc/hostname")
        with pytest.raises(UserError, match="'link', which is not a plain file"):
            store.publish(stage.key, recipe=recipe(stage), label="a", execution={}, meter={}, seconds=1)
    assert not store.has(stage.key)


def test_a_lock_is_one_process_s_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "key"
    code = (
        "import pathlib, sys; from campana.core.lock import KeyLock;"
        " lock = KeyLock.acquire(pathlib.Path(sys.argv[1])); print(bool(lock), flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert KeyLock.is_held(path)
        assert KeyLock.acquire(path) is None
        holder.kill()
    assert not KeyLock.is_held(path)
    lock = KeyLock.acquire(path)
    assert lock is not None
    lock.release()
    assert not path.exists()


def test_a_lock_that_was_inherited_is_held_until_the_heir_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    lock = KeyLock.acquire(path)
    assert lock is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.descriptor]) as heir:
        lock.hand_over()
        assert KeyLock.is_held(path)
        heir.kill()
    assert not KeyLock.is_held(path)


def test_a_store_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"schema": "campana.store/9"}')
    with pytest.raises(StoreError, match=r"campana\.store/9"):
        Store(tmp_path)


def test_an_object_without_its_manifest_is_set_aside_and_built_again(store: Store) -> None:
    stage = grow("a")
    publish(store, stage)
    (store.object_dir(stage.key) / "manifest.json").unlink()
    assert not store.has(stage.key)
    publish(store, stage)
    assert verify(store) == []
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("hello")
    with pytest.raises(StoreError, match="a store is a folder"):
        Store(tmp_path / "store")


def test_looking_into_a_store_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "new")
    make_plan([grow("a")], store)
    assert store.runs() == {}
    assert store.attempts("0" * 64) == []
    with pytest.raises(StoreError, match="is not built"):
        store.path("0" * 64)
    assert not (tmp_path / "new").exists()


def test_a_run_is_recorded_once_for_the_same_keys(store: Store) -> None:
    store.record_run("my study: 1/2", ["b" * 64, "a" * 64])
    store.record_run("my study: 1/2", ["a" * 64, "b" * 64], note="again")
    store.record_run("my study: 1/2", ["c" * 64])
    (records,) = store.runs().values()
    assert [record["keys"] for record in records] == [["a" * 64, "b" * 64], ["c" * 64]]
    assert records[0]["note"] == "again"
