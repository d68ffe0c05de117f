"""Compiled once, found again, and where it cannot be had the reason is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from campana.native import build
from campana.native.build import BF16, FP32, Code, Unavailable, missing
from campana.native.tokens import Tokens


@pytest.fixture(autouse=True)
def forgetful() -> None:
    build.load.cache_clear()


def libraries(cache_dir: Path) -> list[Path]:
    return sorted((cache_dir / "native").glob("*/library.so"))


def test_it_is_compiled_once_and_found_again(tokens: Tokens, tmp_path: Path) -> None:
    build.load(FP32, tmp_path)
    (library,) = libraries(tmp_path)
    made = library.stat().st_mtime_ns
    build.load.cache_clear()
    build.load(FP32, tmp_path)
    assert [path.stat().st_mtime_ns for path in libraries(tmp_path)] == [made]
    assert sorted(path.name for path in library.parent.iterdir()) == ["library.so"]


@pytest.mark.skipif(bool(missing(BF16)), reason="this processor has no units for bf16")
def test_code_for_bf16_is_a_library_of_its_own(tokens: Tokens, tmp_path: Path) -> None:
    for code in (FP32, BF16):
        build.load(code, tmp_path)
    assert len(libraries(tmp_path)) == 2


def test_other_flags_are_another_library(tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.load(FP32, tmp_path)
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-DCAMPANA_OTHER"))
    build.load.cache_clear()
    build.load(FP32, tmp_path)
    assert len(libraries(tmp_path)) == 2


def test_a_machine_without_a_compiler_says_so(tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Unavailable, match="no C compiler"):
        build.load(FP32, tmp_path)


def test_what_the_compiler_says_is_told_and_nothing_is_kept(tokens: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FLAGS", ("-fno-such-flag",))
    with pytest.raises(Unavailable, match="no-such-flag"):
        build.load(FP32, tmp_path)
    assert [path for path in (tmp_path / "native").iterdir() if path.suffix != ".lock"] == []


def test_a_processor_without_the_instructions_says_which(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="lacks no_such_instruction"):
        build.load(Code("fp32", ("no_such_instruction",)), tmp_path)


def test_a_cache_that_cannot_be_written_is_a_reason_and_no_crash(tokens: Tokens, tmp_path: Path) -> None:
    (tmp_path / "native").write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="could not be built"):
        build.load(FP32, tmp_path)


def test_a_damaged_library_is_made_anew(tokens: Tokens, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"  # two, for a process opens a path once
    build.load(FP32, whole)
    (library,) = libraries(whole)
    target = damaged / library.relative_to(whole)
    target.parent.mkdir(parents=True)
    target.write_bytes(library.read_bytes()[:100])
    build.load(FP32, damaged)
    assert target.stat().st_size == pytest.approx(library.stat().st_size, rel=0.01)
