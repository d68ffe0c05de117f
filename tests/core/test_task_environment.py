"""Tasks run with an allocator that does not grow with the steps, unless the person has chosen another."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from campana import __main__ as program
from campana.executors import environment
from campana.executors.environment import task_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mimalloc is put in the C library's place on Linux")


def said_by(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], env=task_environment(), check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("LD_PRELOAD", "MIMALLOC_PURGE_DELAY", "GOMP_SPINCOUNT", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.usefixtures("nothing_set")
def test_a_task_has_mimalloc() -> None:
    assert "libmimalloc" in said_by("print(open('/proc/self/maps').read())")
    assert task_environment()["MIMALLOC_PURGE_DELAY"] == "-1"


def test_what_the_person_has_set_stays(nothing_set: pytest.MonkeyPatch) -> None:
    nothing_set.setenv("LD_PRELOAD", "")
    nothing_set.setenv("GOMP_SPINCOUNT", "7")
    assert "libmimalloc" not in said_by("print(open('/proc/self/maps').read())")
    assert task_environment()["GOMP_SPINCOUNT"] == "7"


def test_without_mimalloc_or_with_a_path_that_cannot_be_named_tasks_run_as_before(nothing_set: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nothing_set.setattr(environment, "MIMALLOC", "cmeel.prefix/lib/absent.so")
    assert "LD_PRELOAD" not in task_environment()
    nothing_set.setattr(environment, "MIMALLOC", "a folder/libmimalloc.so")
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "libmimalloc.so").touch()
    nothing_set.setattr(environment, "distribution", lambda _: SimpleNamespace(locate_file=lambda name: tmp_path / name))
    assert "LD_PRELOAD" not in task_environment()

    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    nothing_set.setattr(environment, "distribution", missing)
    assert "LD_PRELOAD" not in task_environment()


def test_a_program_takes_the_environment_on_and_only_once(nothing_set: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import os, sys\nfrom campana.executors.environment import start_anew\nprint('began', flush=True)\nstart_anew()\n"
        "print(sys.argv[1:], os.environ['GOMP_SPINCOUNT'])\n"
    )
    told = subprocess.run([sys.executable, str(script), "a b"], check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
    assert told.splitlines() == ["began", "began", "['a b'] 5000"]


def test_training_a_reader_by_hand_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(program, "start_anew", lambda: done.append("anew"))
    monkeypatch.setattr(program, "main", lambda: done.append("main"))
    monkeypatch.setattr(sys, "argv", ["campana", "read", "train", "questions.json"])
    program.run()
    monkeypatch.setattr(sys, "argv", ["campana", "read", "answer"])
    program.run()
    assert done == ["anew", "main", "main"]
