"""Registers the test kinds by an entry point, here and in every process that a test starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from campana import parts


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the platter in this process: a power cut is nothing a test can make. Workers do wait."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="package", autouse=True)
def test_kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`engine_kinds.py` as another distribution's parts."""
    site = tmp_path_factory.mktemp("site")
    info = site / "campana_engine_kinds-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: campana-engine-kinds\nVersion: 0\n")
    kinds = {"test_grow": "Grow", "test_threaded": "Threaded", "annotate": "Annotate"}
    (info / "entry_points.txt").write_text(
        "\n".join(["[campana.stage]", *(f"{kind} = engine_kinds:{name}" for kind, name in kinds.items())])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(HERE)]))
        parts.known.cache_clear()
        yield
    parts.known.cache_clear()
