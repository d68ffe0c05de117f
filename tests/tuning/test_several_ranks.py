"""Slow: 2 and 4 real processes over gloo do what one does, resume on any number of them, and die with a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from campana.core.digest import digest_path
from campana.core.observer import Progressed
from campana.core.runner import run
from campana.core.spec import Resources, Source, Stage
from campana.core.store import Store
from campana.errors import StudyError
from campana.executors import Local
from campana.stages.tune import Tune
from campana.tuning.job import TuneJob, tune
from campana.tuning.methods.full import Full
from campana.tuning.methods.lora import Lora
from campana.tuning.options import Adafactor, AdamW, FixedRate, Schedule

SCRIPT = Path(__file__).with_name("rank_script.py")
Make = Callable[..., TuneJob]
pytestmark = pytest.mark.slow


def torchrun(count: int, folder: Path, **told: Any) -> int:
    """Run the script as `count` ranks; the exit code."""
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", str(SCRIPT)]
    argv.append(json.dumps({"folder": str(folder), **told}, default=str))
    done = subprocess.run(argv, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False)
    print(done.stderr)  # noqa: T201  # pytest shows it where the test fails
    return done.returncode


def rows(out_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out_dir / "metrics.jsonl").read_text().splitlines()]


def assert_same_rows(left: Path, right: Path, tolerance: float) -> None:
    for one, other in zip(rows(left), rows(right), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert other[name] == pytest.approx(value, rel=tolerance, abs=tolerance if name == "grad_norm" else None), name


def assert_same_bytes(left: Path, right: Path) -> None:
    names = sorted(str(p.relative_to(left)) for p in left.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(right)) for p in right.rglob("*") if p.is_file())
    assert [name for name in names if (left / name).read_bytes() != (right / name).read_bytes()] == []


def weights(out_dir: Path) -> dict[str, torch.Tensor]:
    (path,) = (out_dir / "model").glob("*.safetensors")
    return load_file(path)


def assert_same_model(left: Path, right: Path) -> None:
    one, other = weights(left), weights(right)
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("count", "method", "tied", "micro"),
    [(2, "full", True, 90), (4, "full", False, 90), (2, "lora", False, 20), (4, "lora", True, 1000)],
    ids=["2, full, tied", "4, full", "2, lora, more packs than ranks", "4, lora, tied, ranks without rows"],
)
def test_ranks_do_what_one_process_does(
    count: int,
    method: str,
    tied: bool,
    micro: int,
    make_job: Make,
    progress: Any,
    model_dir: Path,
    untied_dir: Path,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    model = model_dir if tied else untied_dir
    batch: dict[str, Any] = {"method": Lora(rank=4) if method == "lora" else Full(), "model_dir": model}
    alone = make_job("alone", micro_batch_tokens=micro, **batch)
    meter = tune(alone, progress)
    assert torchrun(count, tmp_path / "ranks", model=model, data=data_dir, method=method, micro_batch_tokens=micro) == 0
    out = tmp_path / "ranks" / "out"
    assert_same_rows(alone.out_dir, out, 1e-5)
    assert_same_model(alone.out_dir, out)
    assert sorted(p.name for p in (out / "model").iterdir()) == sorted(p.name for p in (alone.out_dir / "model").iterdir())
    found = json.loads((tmp_path / "ranks" / "meter.json").read_text())
    assert {name: found[name] for name in ("tokens", "supervised_tokens", "flops")} == {
        name: meter[name] for name in ("tokens", "supervised_tokens", "flops")
    }
    assert len(found["peak_memory_bytes_by_rank"]) == count
    (shards, *_) = sorted((tmp_path / "ranks" / "scratch" / "checkpoints").iterdir(), reverse=True)
    held = [sum(value.nbytes for value in load_file(p).values()) for p in sorted(shards.glob("rank-*.safetensors"))]
    assert len(held) == count
    assert max(held) < 1.3 * sum(held) / count, "each rank holds its share"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_bf16_too(method: str, make_job: Make, progress: Any, model_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    """Frozen matrices in bf16 and adapters in fp32 lie in one group of parameters."""
    alone = make_job("alone", precision="bf16", method=Lora(rank=4) if method == "lora" else Full())
    tune(alone, progress)
    assert torchrun(2, tmp_path / "ranks", model=model_dir, data=data_dir, method=method, precision="bf16") == 0
    losses = [[row["loss"] for row in rows(out) if "loss" in row] for out in (alone.out_dir, tmp_path / "ranks" / "out")]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert {value.dtype for value in weights(tmp_path / "ranks" / "out").values()} == {torch.float32}


def test_killed_ranks_resume_to_the_same_bytes_and_on_another_number_to_the_same_losses(
    model_dir: Path, data_dir: Path, tmp_path: Path
) -> None:
    """2 ranks, of which one is killed; then 2 (bit for bit), 4, and 1 go on from where they were."""
    import shutil

    told = {"model": model_dir, "data": data_dir, "method": "full"}
    assert torchrun(2, tmp_path / "undisturbed", **told) == 0
    assert torchrun(2, tmp_path / "killed", **told, calls=11, dies=1) != 0
    assert len(list((tmp_path / "killed" / "scratch" / "checkpoints").glob("step-*"))) == 2
    for count in (4, 1):
        shutil.copytree(tmp_path / "killed", tmp_path / str(count))
    for name, count in (("killed", 2), ("4", 4), ("1", 1)):
        assert torchrun(count, tmp_path / name, **told) == 0
        assert json.loads((tmp_path / name / "meter.json").read_text())["resumed_from_step"] > 3
    assert_same_bytes(tmp_path / "undisturbed" / "out", tmp_path / "killed" / "out")
    for name in ("4", "1"):
        assert_same_rows(tmp_path / "undisturbed" / "out", tmp_path / name / "out", 1e-5)
        assert_same_model(tmp_path / "undisturbed" / "out", tmp_path / name / "out")


def test_one_process_s_checkpoint_is_gone_on_with_by_two(
    make_job: Make, progress: Any, model_dir: Path, data_dir: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    left = [9]

    def kill(*_: Any, **__: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    undisturbed, killed = make_job("undisturbed", method=Lora(rank=4)), make_job("killed", method=Lora(rank=4), checkpoint_seconds=0.0)
    tune(undisturbed, progress)
    with pytest.raises(Killed):
        tune(killed, kill)
    assert torchrun(2, tmp_path / "killed", model=model_dir, data=data_dir, method="lora") == 0
    assert json.loads((tmp_path / "killed" / "meter.json").read_text())["resumed_from_step"] > 2
    assert_same_rows(undisturbed.out_dir, killed.out_dir, 1e-5)


def stage(model_dir: Path, data_dir: Path, ranks: int, epochs: float = 2.0) -> Stage:
    spec = Tune(
        method=Full(),
        learning_rate=FixedRate(value=3e-3),
        epochs=epochs,
        batch_tokens=160,
        schedule=Schedule(warmup=0.1),
        micro_batch_tokens=90,
        checkpoint_seconds=0.0,
    )
    inputs = {name: Source(digest_path(path), path) for name, path in (("model", model_dir), ("data", data_dir))}
    return Stage(spec, inputs, Resources(cores=2, ranks=ranks), label="tune")


def test_a_stage_of_two_ranks_has_the_key_and_the_losses_of_one(model_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    one, two = (stage(model_dir, data_dir, ranks) for ranks in (1, 2))
    assert one.key == two.key
    stores = [Store(tmp_path / name) for name in ("one", "two")]
    for each, store in zip((one, two), stores, strict=True):
        with Local() as executor:
            assert run([each], store, executor, resources=Resources(cores=2, memory_bytes=8 << 30)).failed == {}
    assert_same_rows(stores[0].path(one.key), stores[1].path(two.key), 1e-5)
    assert stores[1].manifest(two.key).execution["resources"]["ranks"] == 2
    assert not stores[1].work_dir(two.key).exists()


def test_a_dead_rank_ends_the_stage_with_a_reason_and_the_next_run_goes_on(model_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    tuned = stage(model_dir, data_dir, ranks=2, epochs=12.0)
    store = Store(tmp_path / "store")
    killed: list[int] = []

    def kill_rank_one(event: object) -> None:
        if isinstance(event, Progressed) and not killed and len(list(store.work_dir(tuned.key).glob("scratch/checkpoints/step-*"))) == 2:
            for process in psutil.process_iter():
                if process.pid != os.getpid() and is_rank_one(process, tuned.key):
                    killed.append(process.pid)
                    process.kill()

    with Local() as executor:
        failed = run([tuned], store, executor, kill_rank_one, resources=Resources(cores=2, memory_bytes=8 << 30)).failed
        assert len(killed) == 1
        assert failed[tuned.key].startswith("rank 1 was killed by SIGKILL\nhint:")
        assert store.failure(tuned.key) == failed[tuned.key]
        assert not store.is_running(tuned.key)
        assert run([tuned], store, executor, resources=Resources(cores=2, memory_bytes=8 << 30)).failed == {}
    assert store.manifest(tuned.key).meter["resumed_from_step"] > 0


def is_rank_one(process: psutil.Process, key: str) -> bool:
    try:
        return any(key in argument for argument in process.cmdline()) and process.environ().get("RANK") == "1"
    except psutil.Error:
        return False


def test_a_rank_s_own_error_is_told(model_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    tuned = stage(model_dir, data_dir, ranks=2)
    hot = Stage(tuned.spec.model_copy(update={"learning_rate": FixedRate(value=1e38)}), tuned.inputs, tuned.resources, label="hot")
    with Local() as executor:
        failed = run([hot], Store(tmp_path / "store"), executor, resources=Resources(cores=2, memory_bytes=8 << 30)).failed
    assert "is not a number\nhint: lower the learning rate" in failed[hot.key]


def test_an_optimiser_that_cannot_be_cut_is_refused(make_job: Make, progress: Any) -> None:
    with pytest.raises(StudyError, match="adafactor cannot work on weights that are cut over 2 ranks"):
        tune(make_job(optimizer=Adafactor(), ranks=2), progress)


def test_a_process_that_torchrun_did_not_start_is_refused(make_job: Make, progress: Any) -> None:
    from campana.errors import StageFailed

    with pytest.raises(StageFailed, match="2 ranks are asked for"):
        tune(make_job(optimizer=AdamW(), ranks=2), progress)
