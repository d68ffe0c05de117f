"""The store that version 1 wrote is readable for ever, and all hits. It is checked in; `data/make_store_v1.py` made it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stored import grow

from campana.core.gc import plan_gc
from campana.core.plan import State, make_plan
from campana.core.spec import Stage
from campana.core.store import Store
from campana.core.verify import verify

V1 = Path(__file__).parent / "data" / "store_v1"
DATA = "0ba9aa35dd3553b3eb48c710c45e32d9d4666a216d3972d478047579376a8ead"
TUNE = "918b8f849aa1a2cdb715d6a3e73ae53d9974400102551da850528bf830353390"


def tune() -> Stage:
    return grow("tune", grow("数据", options={"count": 1000}), rate=1e-4, late=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(V1, tmp_path / "copy")
    return Store(tmp_path / "copy")


def test_the_same_study_is_all_hits(store: Store) -> None:
    plan = make_plan([tune()], store)
    assert [(entry.key, entry.state) for entry in plan.entries] == [(DATA, State.BUILT), (TUNE, State.BUILT)]


def test_everything_in_it_is_read(store: Store) -> None:
    assert list(store.built_keys()) == [DATA, TUNE]
    assert verify(store) == []
    assert (store.path(DATA) / "text.txt").read_text() == "数据"
    manifest = store.manifest(TUNE)
    assert manifest.recipe["inputs"] == {"数据": DATA}
    assert (manifest.recipe["rate"], manifest.recipe["late"], manifest.seconds, manifest.meter) == (1e-4, 3, 1.5, {"tokens": 3})
    assert [(attempt.outcome, attempt.seconds, attempt.error) for attempt in store.attempts(DATA)] == [
        ("failed", 2.5, "the first try failed"),
        ("built", 1.5, ""),
    ]
    assert store.runs()["v1"][0]["keys"] == [DATA, TUNE]
    assert plan_gc(store) == []


def test_a_new_stage_is_compared_with_it(store: Store) -> None:
    stage = grow("tune", grow("数据", options={"count": 2000}), rate=1e-4, late=3)
    reasons = [entry.reason for entry in make_plan([stage], store).entries]
    assert reasons == ["differs in options.count: 1000 -> 2000", "input 数据 is rebuilt (options.count: 1000 -> 2000)"]
