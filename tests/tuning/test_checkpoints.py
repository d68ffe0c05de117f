"""A checkpoint is whole or absent, and the newest good one is used."""

from __future__ import annotations

import errno
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.errors import StoreError
from campana.tuning.checkpoint import RECORD, Checkpoints, Saved
from campana.tuning.optimizer import build
from campana.tuning.options import Adafactor, AdamW
from campana.tuning.state import restore, tensors_of

TENSORS = "rank-0.safetensors"


def filled(folder: Path, steps: tuple[int, ...] = (3, 5)) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, {"weight/w": torch.full((4,), float(step))}, {"rows": [{"loss": 0.1 * step}]})
    return checkpoints


def weight(saved: Saved) -> list[float]:
    read = torch.zeros(*saved.shapes["weight/w"])
    saved.read_into({"weight/w": read})
    return read.tolist()


def test_the_newest_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = filled(tmp_path / "c", (3, 5, 11)).newest()
    assert saved is not None
    assert (saved.step, saved.record) == (11, {"rows": [{"loss": 0.1 * 11}]})
    assert weight(saved) == [11.0] * 4
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
    assert (saved.step, weight(saved)) == (3, [3.0] * 4)
    assert checkpoints.damaged == ["step-000000005"]


def test_the_log_names_what_was_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = filled(tmp_path / "c")
    (checkpoints.folder / "step-000000005" / RECORD).write_text("nothing")
    with caplog.at_level(logging.WARNING):
        checkpoints.newest()
    assert "step-000000005 is damaged: an older one is used" in caplog.text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full_loses_nothing(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk / "c")
    tensors = {"weight/w": torch.full((60_000,), 1.0)}
    checkpoints.save(1, tensors, {})
    checkpoints.save(2, tensors, {})
    with pytest.raises(StoreError, match=r"step 3 could not be written[\s\S]*No space left"):
        checkpoints.save(3, tensors, {})
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == ["step-000000001", "step-000000002"]
    saved = checkpoints.newest()
    assert saved is not None
    assert saved.step == 2
    assert weight(saved) == [1.0] * 60_000


@pytest.mark.parametrize("written", [0, 100])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    """At any moment of the write, and however the library tells it."""
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


@pytest.mark.parametrize("options", [AdamW(weight_decay=0.1), Adafactor(weight_decay=0.1)], ids=lambda options: options.kind)
def test_state_goes_back_into_the_optimiser(options: Any, tmp_path: Path) -> None:
    """One more step after reading a checkpoint is, bit for bit, the step that would have followed."""

    def made(columns: int = 2) -> tuple[dict[str, torch.nn.Parameter], torch.optim.Optimizer]:
        model = torch.nn.ModuleDict({"a": torch.nn.Linear(columns, 3), "idle": torch.nn.Linear(2, 2)})
        for parameter in model.parameters():
            torch.nn.init.ones_(parameter)
        return dict(model.named_parameters()), build(model, options, 0.1)

    def step(learning: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name in ("a.weight", "a.bias"):
            learning[name].grad = torch.randn(learning[name].shape, generator=generator)
        optimizer.step()

    checkpoints = Checkpoints(tmp_path / "c")
    learning, optimizer = made()
    for seed in range(3):
        step(learning, optimizer, seed)
    checkpoints.save(3, tensors_of(learning, optimizer), {})
    step(learning, optimizer, 3)
    saved = checkpoints.newest()
    assert saved is not None
    other, other_optimizer = made(columns=5)
    assert not restore(saved, other, other_optimizer), "of another shape"
    other, other_optimizer = made()
    unlike = torch.optim.SGD(other.values(), lr=0.1, momentum=0.9)
    assert not restore(saved, other, unlike), "of another optimiser"
    assert not unlike.state
    assert restore(saved, other, other_optimizer)
    idle = other_optimizer.state.get(other["idle.weight"], {})
    assert not any(value.any() for value in idle.values()), "what never had a gradient has no moments"
    step(other, other_optimizer, 3)
    assert all(torch.equal(learning[name], other[name]) for name in learning)
    assert tensors_of(learning, optimizer).keys() == tensors_of(other, other_optimizer).keys()
