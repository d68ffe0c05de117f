"""A checkpoint is whole or absent, and the newest good one is used."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.errors import StoreError
from campana.tuning.checkpoint import RECORD, TENSORS, Checkpoints
from campana.tuning.state import fits, restore, tensors_of


def filled(folder: Path, steps: tuple[int, ...] = (3, 5)) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, {"weight/w": torch.full((4,), float(step))}, {"rows": [{"loss": 0.1 * step}]})
    return checkpoints


def test_the_newest_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = filled(tmp_path / "c", (3, 5, 11)).newest()
    assert saved is not None
    assert (saved.step, saved.record) == (11, {"rows": [{"loss": 0.1 * 11}]})
    assert saved.tensors["weight/w"].tolist() == [11.0] * 4
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["step-000000005", "step-000000011"]


def test_none_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "c").newest() is None


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from([TENSORS, RECORD]), place=st.floats(0, 1, exclude_max=True), how=st.sampled_from(["flip", "cut", "remove"]))
def test_a_damaged_one_is_passed_over(tmp_path_factory: pytest.TempPathFactory, name: str, place: float, how: str) -> None:
    checkpoints = filled(tmp_path_factory.mktemp("c"))
    path = checkpoints.folder / "step-000000005" / name
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    if how == "flip":
        content[at] ^= 0x10
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[:at])
    else:
        path.unlink()
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.step == 3


@pytest.mark.parametrize("written", [0, 100])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    import safetensors.torch

    checkpoints = filled(tmp_path / "c")
    real = safetensors.torch.save_file

    def full(tensors: Any, path: Path, metadata: Any = None) -> None:
        real(tensors, path, metadata)
        path.write_bytes(path.read_bytes()[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StoreError, match=r"step 7 could not be written[\s\S]*No space left"):
        checkpoints.save(7, {"weight/w": torch.zeros(4)}, {})
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == ["step-000000003", "step-000000005"]
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.step == 5


def test_what_a_killed_save_left_is_removed(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path / "c")
    (checkpoints.folder / "writing-123").mkdir()
    (checkpoints.folder / "writing-123" / TENSORS).write_bytes(b"half")
    saved = Checkpoints(checkpoints.folder).newest()
    assert saved is not None
    assert saved.step == 5
    assert not (checkpoints.folder / "writing-123").exists()


def test_state_goes_back_into_the_optimiser() -> None:
    def made() -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
        learning = {"a": torch.nn.Parameter(torch.ones(3, 2)), "b": torch.nn.Parameter(torch.ones(2))}
        return learning, torch.optim.AdamW(learning.values(), lr=0.1, fused=True)

    def step(learning: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in learning.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()

    learning, optimizer = made()
    step(learning, optimizer, 0)
    tensors = {name: value.clone() for name, value in tensors_of(learning, optimizer).items()}
    step(learning, optimizer, 1)
    other, other_optimizer = made()
    assert fits(tensors, other)
    assert not fits(tensors, {"a": other["a"]})
    assert not fits(tensors, {"a": other["a"], "b": torch.nn.Parameter(torch.ones(9))})
    restore(tensors, other, other_optimizer)
    step(other, other_optimizer, 1)
    assert all(torch.equal(learning[name], other[name]) for name in learning)
