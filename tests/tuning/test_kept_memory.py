"""Freed memory is kept while steps need it, and given back once more has gathered than they do."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from campana.tuning import machine
from campana.tuning.machine import REST, KeptMemory


@pytest.fixture
def trims(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`told(resident)`: a step ended with so many bytes; returns how often blocks were given back so far."""
    done: list[int] = []
    memory = KeptMemory(SimpleNamespace(malloc_trim=done.append))

    def told(resident: int) -> int:
        monkeypatch.setattr(machine, "resident_bytes", lambda: resident)
        memory.after_step()
        return len(done)

    return told


def test_steps_of_one_size_keep_all(trims: Any) -> None:
    assert [trims(100) for _ in range(3 * REST)][-1] == 0


def test_what_later_steps_need_more_is_learnt_by_giving_back_once(trims: Any) -> None:
    assert [trims(size) for size in (100, *[150] * 3 * REST)][-1] == 1


def test_growth_within_few_steps_waits_and_is_not_taken_as_needed(trims: Any) -> None:
    sizes = (100, 130, 170, *[170] * (REST - 4))
    assert [trims(size) for size in sizes][-1] == 0
    assert trims(170) == 1


def test_growth_is_given_back_and_may_begin_again(trims: Any) -> None:
    assert [trims(size) for size in (100, *[110] * REST, 116)][-1] == 1
    assert [trims(size) for size in (100, *[110] * REST, 116)][-1] == 2


def test_without_glibc_nothing_happens() -> None:
    KeptMemory(None).after_step()


FREED = """
import numpy as np
from campana.tuning import machine

machine.{memory}()
before = machine.resident_bytes()
blocks = [np.ones(1 << 20) for _ in range(24)]
held = machine.resident_bytes()
last = blocks.pop()
del blocks
print(held - before, held - machine.resident_bytes())
"""


@pytest.mark.parametrize(("memory", "given_back"), [("keep_memory", False), ("return_memory", True)])
def test_freed_blocks_are_kept_or_returned_at_once(memory: str, given_back: bool) -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("not glibc on Linux")
    code = FREED.format(memory=memory)
    taken, freed = map(int, subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())
    assert taken > 150e6
    assert (freed > 100e6) == given_back


ALONE = """
import numpy as np
from campana.tuning import machine

memory = machine.keep_memory()
before = machine.resident_bytes()
blocks = [np.ones(1 << 20) for _ in range(24)]
held = machine.resident_bytes()
last = blocks.pop()  # above it nothing is free: the others are holes
del blocks
memory.level, memory.steps = before, machine.REST
memory.after_step()
print("other C library" if memory.libc is None else f"{held - before} {held - machine.resident_bytes()} {last.sum():.0f}")
"""


def test_freed_blocks_are_given_back_on_this_machine() -> None:
    """In an interpreter of its own: what other tests left free would be taken first."""
    found = subprocess.run([sys.executable, "-c", ALONE], check=True, capture_output=True, text=True).stdout.strip()
    if found == "other C library":
        pytest.skip("not glibc on Linux")
    taken, given_back, total = map(int, found.split())
    assert taken > 150e6
    assert given_back > 100e6
    assert total == 1 << 20
