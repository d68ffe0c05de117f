"""The worker: one task, one process, by hand as in a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from stored import grow, publish

from campana.core.digest import digest_path
from campana.core.runner import run
from campana.core.spec import Context, Meter, Resources, Source, Stage, StageSpec
from campana.core.store import Store
from campana.core.task import Task
from campana.core.work import Throttle
from campana.errors import StoreError
from campana.executors import Inline


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def write(stage: Stage, store: Store, resources: Resources | None = None) -> Path:
    path = store.work_dir(stage.key) / "task.json"
    Task.of(stage, store.root, resources or Resources()).write(path)
    return path


def work(path: Path) -> tuple[int, list[dict[str, object]]]:
    done = subprocess.run([sys.executable, "-m", "campana.worker", str(path)], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_a_task_run_by_hand(store: Store) -> None:
    below = grow("below")
    publish(store, below)
    stage = grow("a", below, seconds=0.01)
    code, rows = work(write(stage, store, Resources(cores=2)))
    assert (code, [row["event"] for row in rows]) == (0, ["progress", "progress", "built"])
    assert rows[0] == {"event": "progress", "done": 0, "total": 1, "unit": "steps", "figures": {"note": "begun"}}
    manifest = store.manifest(stage.key)
    assert manifest.recipe["inputs"] == {"below": below.key}
    assert manifest.execution["seconds"] == 0.01
    assert manifest.execution["nested.threads"] == 1
    assert manifest.execution["resources"] == {"cores": 2, "memory_bytes": 1 << 30, "ranks": 1}
    assert manifest.seconds > 0.01
    assert manifest.code


def test_a_user_s_mistake_has_no_traceback_and_a_fault_has_one_in_the_log(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("refuse")
    (tmp_path / "ours").write_text("fail")
    code, rows = work(write(grow("mine", faults=str(tmp_path)), store))
    assert (code, rows[-1]) == (1, {"event": "failed", "error": "data.jsonl:7: row 7 is wrong\nhint: mend row 7"})
    ours = grow("ours", faults=str(tmp_path))
    code, rows = work(write(ours, store))
    log = store.work_dir(ours.key) / "log.txt"
    assert rows[-1]["error"] == f"ZeroDivisionError: the test asked for it\nhint: the traceback is in {log}"
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(("fault", "words"), [("forget", "without writing text.txt"), ("nan", "not JSON"), ("link", "not a plain file")])
def test_what_a_stage_leaves_is_checked(store: Store, tmp_path: Path, fault: str, words: str) -> None:
    (tmp_path / "bad").write_text(fault)
    stage = grow("bad", faults=str(tmp_path))
    assert words in run([stage], store, Inline()).failed[stage.key]
    assert not store.has(stage.key)


def test_a_source_that_changed_since_it_was_planned_stops_the_stage(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("new")
    stage = Stage(grow("a").spec, {"data": Source("sha256:" + "0" * 64, path)}, label="a")
    assert "has changed since the study was planned" in run([stage], store, Inline()).failed[stage.key]


def test_a_source_known_by_a_part_of_it_is_read_as_a_whole(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("new")
    stage = Stage(grow("a").spec, {"data": Source("prompts:" + "0" * 64, path, "sha256:" + "0" * 64)}, label="a")
    assert "has changed since the study was planned" in run([stage], store, Inline()).failed[stage.key]
    same = Stage(grow("b").spec, {"data": Source("prompts:" + "0" * 64, path, digest_path(path))}, label="b")
    assert run([same], store, Inline()).built == (same.key,)


def test_a_source_that_changes_while_it_is_read_stops_the_stage(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("old")
    spec = grow("a").spec.model_copy(update={"tally": str(path)})  # What it appends to, at its end, is its own source.
    stage = Stage(spec, {"data": Source(digest_path(path), path)}, label="a")
    result = run([stage], store, Inline())
    assert "has changed while it was read" in result.failed[stage.key]
    assert not store.has(stage.key)


def test_a_damaged_input_stops_the_stage(store: Store) -> None:
    below = grow("below")
    publish(store, below)
    text = store.path(below.key) / "text.txt"
    text.chmod(0o644)
    text.write_text("bElow")
    stage = grow("a", below)
    assert "text.txt is not what was written" in run([stage], store, Inline()).failed[stage.key]


def test_a_full_disk_that_a_rust_library_met_is_a_full_disk(store: Store, tmp_path: Path) -> None:
    def run_out(_spec: StageSpec, _context: Context) -> Meter:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    stage = grow("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(stage.spec), "run", run_out)
        assert "the disk is full" in run([stage], store, Inline()).failed[stage.key]


def test_a_key_that_is_being_built_is_left_alone(store: Store) -> None:
    stage = grow("a")
    path = write(stage, store)
    lock = store.lock(stage.key)
    assert lock is not None
    with lock:
        code, rows = work(path)
    assert code == 2
    assert "another process builds this now" in str(rows[-1]["error"])


def test_code_that_gives_another_recipe_than_was_planned_is_refused(store: Store) -> None:
    path = write(grow("a"), store)
    task = json.loads(path.read_text())
    task["recipe"]["rate"] = 2.0
    path.write_text(json.dumps(task))
    with pytest.raises(StoreError, match="not the code that planned it"):
        Task.read(path).load_spec()
    task["schema"] = "campana.task/9"
    path.write_text(json.dumps(task))
    with pytest.raises(StoreError, match="not a task of schema"):
        Task.read(path)


def test_progress_is_passed_on_at_most_twice_a_second_and_at_the_end() -> None:
    rows: list[object] = []
    now = iter([0.0, 0.1, 0.2, 0.6, 0.7, 0.8])
    progress = Throttle(rows.append, lambda: next(now))
    for done in (1, 2, 3, 4, 5, 6):
        progress(done, 6, "rows", loss=0.5)
    assert [row["done"] for row in rows] == [1, 4, 6]  # type: ignore[index]  # notices


@pytest.mark.slow
def test_more_than_one_rank_goes_through_torchrun(store: Store, tmp_path: Path) -> None:
    stage = grow("a", tally=str(tmp_path / "tally"))
    code, rows = work(write(stage, store, Resources(cores=2, ranks=2)))
    assert (code, rows[-1]["event"]) == (0, "built")
    assert (tmp_path / "tally").read_text() == "a\na\n", "each rank runs it"
    assert (store.path(stage.key) / "text.txt").read_text() == "a"
    assert not store.is_running(stage.key)
