"""The plan says what would run, and why, in words; and nothing that is not needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored import grow, put

from campana.core.gc import plan_gc, sweep
from campana.core.plan import State, make_plan
from campana.core.runner import run
from campana.core.store import Store
from campana.core.why import why
from campana.executors import Inline


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def told(targets: list[object], store: Store) -> dict[str, tuple[str, str]]:
    return {entry.stage.label: (entry.state, entry.reason) for entry in make_plan(targets, store).entries}  # type: ignore[arg-type]  # stages


def test_reasons_name_the_field_that_differs(store: Store) -> None:
    put(store, grow("report", grow("tune", grow("data", options={"count": 1000}), rate=1e-4)))
    new_rate = grow("report", grow("tune", grow("data", options={"count": 1000}), rate=3e-4))
    assert told([new_rate], store) == {
        "data": ("built", "in the store"),
        "tune": ("build", "differs in rate: 0.0001 -> 0.0003"),
        "report": ("build", "input tune is rebuilt (rate: 0.0001 -> 0.0003)"),
    }
    new_data = grow("report", grow("tune", grow("data", options={"count": 2000}), rate=1e-4))
    assert told([new_data], store)["report"] == ("build", "input tune is rebuilt (inputs.data.options.count: 1000 -> 2000)")

    explained = why(new_data, store)
    assert explained.state == State.BUILD
    assert [str(each) for each in explained.differences] == ["inputs.tune.inputs.data.options.count: 1000 -> 2000"]
    assert why(grow("data", options={"count": 1000}), store).state == State.BUILT


def test_reasons_of_stages_like_nothing_stored(store: Store) -> None:
    assert told([grow("a")], store) == {"a": ("build", "not in the store")}
    put(store, grow("a", rate=5.0), grow("b", rate=7.0, late=1))
    state, reason = told([grow("c", rate=5.0)], store)["c"]
    assert (state, reason) == ("build", "differs from a in text: 'a' -> 'c'"), "the stored stage with the fewest differences"


def test_a_built_stage_needs_none_of_its_inputs(store: Store) -> None:
    data = grow("data")
    tune = grow("tune", data)
    put(store, tune)
    store.record_run("study", [tune.key])
    sweep(store, plan_gc(store))
    plan = make_plan([tune], store)
    assert [entry.stage.label for entry in plan.entries] == ["tune"]
    assert [stage.label for stage in plan.skipped] == ["data"]
    assert plan.missing == ()
    other = grow("other", data)
    assert [(entry.stage.label, entry.state) for entry in make_plan([tune, other], store).missing] == [
        ("data", "build"),
        ("other", "build"),
    ]


def test_running_and_failed_stages_say_so(store: Store, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("refuse")
    bad = grow("bad", faults=str(tmp_path))
    run([bad], store, Inline())
    assert told([bad], store)["bad"] == ("failed before", "failed: data.jsonl:7: row 7 is wrong; will be tried again")
    lock = store.lock(bad.key)
    assert lock is not None
    assert told([bad], store)["bad"][0] == "running"
    lock.release()


def test_equal_work_is_planned_once(store: Store) -> None:
    plan = make_plan([grow("report", grow("a")), grow("other", grow("a"))], store)
    assert [entry.stage.label for entry in plan.entries] == ["a", "report", "other"]


def test_code_that_changed_is_advice_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = grow("a")
    run([stage], store, Inline())
    assert make_plan([stage], store).entries[0].stale is False
    monkeypatch.setattr("campana.core.reasons.code_digest", lambda _: "another")
    (entry,) = make_plan([stage], store).entries
    assert (entry.state, entry.stale) == (State.BUILT, True)
    assert "other code" in entry.reason


def test_the_index_is_only_a_cache(store: Store) -> None:
    put(store, grow("a"))
    make_plan([grow("b")], store)
    index = store.root / "index.jsonl"
    assert index.exists()
    put(store, grow("c"))
    index.write_text(index.read_text()[:-20])
    assert "differs from" in told([grow("d")], store)["d"][1]
    index.write_text("not an index")
    assert told([grow("a"), grow("c")], store) == {"a": ("built", "in the store"), "c": ("built", "in the store")}
