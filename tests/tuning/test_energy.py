"""Energy from a made-up powercap folder and a made-up NVML: what is counted, wrapping, what cannot be read, and the whole run."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from campana.tuning import energy
from campana.tuning.checkpoint import Checkpoints, Saved
from campana.tuning.energy import NOTHING, Counter, Energy, Spent, counters_here, rapl, together
from campana.tuning.job import TuneJob, tune
from campana.tuning.ranks import Ranks

RANGE = 262_143_328_850
"""Microjoules, as a desktop processor tells."""


def zone(folder: Path, place: str, name: str, value: int) -> Path:
    path = folder / place
    path.mkdir(parents=True)
    (path / "name").write_text(name + "\n")
    (path / "energy_uj").write_text(f"{value}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    return path / "energy_uj"


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, the parts of one, its memory, the platform, and another view of the first package."""
    folder = tmp_path / "powercap"
    for place, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "dram"),
        ("intel-rapl:1", "package-1"),
        ("intel-rapl:2", "psys"),
        ("intel-rapl-mmio:0", "package-0"),
    ):
        zone(folder, place, name, 5_000_000)
    (folder / "intel-rapl").mkdir()
    return folder


def test_packages_and_memory_are_counted_once(powercap: Path) -> None:
    with Energy(rapl(powercap)) as meter:
        for path in powercap.glob("*/energy_uj"):
            path.write_text("7500000")
        spent = meter.spent()
    assert spent == Spent(7.5, ("package-0", "dram-0", "package-1"))


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 1_000_000)
    with Energy(rapl(tmp_path)) as meter:
        path.write_text("500000")
        assert meter.spent() == Spent(1.5, ("package-0",))
        path.write_text("2500000")
        assert meter.spent() == Spent(3.5, ("package-0",))


def test_readings_are_taken_while_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a counter could wrap twice unseen."""
    import threading

    monkeypatch.setattr(energy, "SAMPLE_SECONDS", 0.01)
    values = iter([RANGE - 10, 20, *range(RANGE - 4, RANGE)])
    seen = threading.Event()

    def read() -> int:
        value = next(values, RANGE)
        if value >= RANGE - 3:
            seen.set()
        return value

    with Energy([Counter("package-0", read, RANGE)]) as meter:
        assert seen.wait(20)
        spent = meter.spent()
    assert spent is not None
    assert spent.joules * 1e6 == pytest.approx(RANGE + 10, abs=10)  # once round, and on to the end of the range


def test_a_counter_that_cannot_be_read_is_not_there_and_one_that_is_lost_takes_the_sum(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 10)
    zone(tmp_path, "intel-rapl:1", "package-1", 10).unlink()  # as for a user who may not read it
    assert [counter.name for counter in rapl(tmp_path)] == ["package-0"]
    assert rapl(tmp_path / "no such folder") == []
    with Energy(rapl(tmp_path)) as meter:
        path.unlink()
        assert meter.spent() is None


def test_sums_over_ranks_and_tries() -> None:
    one, gpu = Spent(2.0, ("package-0", "GPU-a")), Spent(1.0, ("GPU-b",))
    assert together([one, gpu]) == Spent(3.0, ("package-0", "GPU-a", "GPU-b"))
    assert together([one, NOTHING]) == one
    assert together([NOTHING, NOTHING]) is None
    assert together([one, None]) is None


def test_only_the_first_rank_reads_the_machine_s_counters(powercap: Path) -> None:
    assert len(counters_here(Ranks(0, 2), powercap)) == 3
    assert counters_here(Ranks(1, 2), powercap) == []


def test_a_gpu_is_asked_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([1000, 1250])
    fake: Any = types.ModuleType("pynvml")
    fake.NVMLError = type("NVMLError", (Exception,), {})
    fake.nvmlInit = lambda: None
    fake.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    fake.nvmlDeviceGetTotalEnergyConsumption = lambda gpu: next(told)  # millijoules
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid="abc"))
    with Energy(energy.nvml()) as meter:
        assert meter.spent() == Spent(0.25, ("GPU-abc",))

    def too_old(gpu: str) -> int:
        raise fake.NVMLError

    fake.nvmlDeviceGetTotalEnergyConsumption = too_old
    assert energy.nvml() == []


def test_a_run_tells_what_it_spent_and_a_resumed_one_all_of_it(
    make_job: Callable[..., TuneJob], progress: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zone(tmp_path / "powercap", "intel-rapl:0", "package-0", 1_000_000)
    monkeypatch.setattr(energy, "counters_here", lambda ranks: rapl(tmp_path / "powercap"))

    class Killed(BaseException):
        pass

    steps = [0]

    def spend(*_: Any, step: int, **__: Any) -> None:
        if step > steps[0]:
            steps[0] = step
            path.write_text(str(int(path.read_text()) + 2_000_000))
        if step == 6:
            raise Killed

    job = make_job(checkpoint_seconds=0.0, export=False)
    with pytest.raises(Killed):
        tune(job, spend)
    meter = tune(job, progress)
    assert meter["resumed_from_step"] == 5
    assert meter["energy_joules"] == pytest.approx(10.0)
    assert meter["energy_of"] == ["package-0"]
    assert "joules" not in (job.out_dir / "tune.json").read_text()


def test_a_checkpoint_of_an_older_release_is_gone_on_from_without_a_figure(
    make_job: Callable[..., TuneJob], progress: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path / "powercap", "intel-rapl:0", "package-0", 1_000_000)
    monkeypatch.setattr(energy, "counters_here", lambda ranks: rapl(tmp_path / "powercap"))

    class Killed(BaseException):
        pass

    def kill(*_: Any, step: int, **__: Any) -> None:
        if step == 3:
            raise Killed

    job = make_job(checkpoint_seconds=0.0, export=False)
    with pytest.raises(Killed):
        tune(job, kill)
    newest = Checkpoints.newest

    def without_energy(checkpoints: Checkpoints) -> Saved | None:
        saved = newest(checkpoints)
        assert saved is not None
        del saved.record["energy"]
        return saved

    monkeypatch.setattr(Checkpoints, "newest", without_energy)
    meter = tune(job, progress)
    assert meter["resumed_from_step"] == 2
    assert "energy_joules" not in meter


def test_without_counters_there_is_no_figure(make_job: Callable[..., TuneJob], progress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "counters_here", lambda ranks: [])
    meter = tune(make_job(export=False, epochs=0.5), progress)
    assert "energy" not in json.dumps(dict(meter))
