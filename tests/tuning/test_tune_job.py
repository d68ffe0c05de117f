"""A whole run through its public door: what it writes, that it repeats, resumes exactly, and fails with a reason."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from campana.errors import DataError, ModelError, StageFailed
from campana.models.positions import refuse_beyond
from campana.tuning.job import TuneJob, tune
from campana.tuning.methods.lora import Lora
from campana.tuning.options import Adafactor, Schedule

Make = Callable[..., TuneJob]


class Killed(BaseException):
    """Stands for a signal: nothing in the loop may catch it."""


def rows(job: TuneJob) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.out_dir / "metrics.jsonl").read_text().splitlines()]


def result(job: TuneJob) -> dict[str, Any]:
    return json.loads((job.out_dir / "tune.json").read_text())


def assert_same_files(left: TuneJob, right: TuneJob) -> None:
    names = sorted(str(p.relative_to(left.out_dir)) for p in left.out_dir.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(right.out_dir)) for p in right.out_dir.rglob("*") if p.is_file())
    for name in names:
        assert (left.out_dir / name).read_bytes() == (right.out_dir / name).read_bytes(), name


def killed_after(job: TuneJob, calls: int) -> None:
    """Run the job until its progress has been told so often."""
    left = [calls]

    def progress(done: float, total: float, unit: str, **figures: float | str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    with pytest.raises(Killed):
        tune(job, progress)


def test_a_full_run_writes_what_it_did(make_job: Make, progress: Any) -> None:
    job = make_job()
    meter = tune(job, progress)
    made = result(job)
    steps = [row for row in rows(job) if "loss" in row]
    evaluations = [row for row in rows(job) if "validation_loss" in row]
    assert made["schema"] == "campana.tune/1"
    assert [row["step"] for row in steps] == list(range(1, made["steps"] + 1))
    assert [row["step"] for row in evaluations] == [0, 4, 8, 12]
    assert made["tokens"] == sum(row["tokens"] for row in steps) == meter["tokens"]
    assert made["supervised_tokens"] == sum(row["supervised"] for row in steps)
    assert made["initial_validation_loss"] == evaluations[0]["validation_loss"]
    assert made["final_validation_loss"] == evaluations[-1]["validation_loss"] < made["initial_validation_loss"] - 0.1
    assert made["trainable_parameters"] == made["total_parameters"]
    assert made["flops"] == meter["flops"] > 6 * made["total_parameters"]
    assert made["diverged"] is None
    assert set(meter["seconds"]) >= {"load", "train", "validate", "export"}
    assert meter["tokens_per_second"] > 0
    assert meter["peak_memory_bytes"] > 1 << 20
    assert "second" not in (job.out_dir / "tune.json").read_text()


def test_a_full_model_loads_alone(make_job: Make, progress: Any, model_dir: Path) -> None:
    from campana.models.load import load_model, load_tokenizer

    job = make_job()
    tune(job, progress)
    loaded, base = load_model(job.out_dir / "model"), load_model(model_dir)
    assert load_tokenizer(job.out_dir / "model").encode("w5 w9") == [5, 9]
    ids = torch.tensor([[9, 66, 51]])
    assert (loaded(input_ids=ids).logits - base(input_ids=ids).logits).abs().max() > 1e-2
    config = json.loads((job.out_dir / "model" / "config.json").read_text())
    assert "campana" not in json.dumps(config)


def test_the_same_job_gives_the_same_bytes(make_job: Make, progress: Any) -> None:
    first, second = make_job("first"), make_job("second")
    tune(first, progress)
    tune(second, progress)
    assert_same_files(first, second)


@pytest.mark.parametrize(
    ("fields", "calls"),
    [({}, 1), ({}, 17), ({"method": Lora(rank=4, dropout=0.2)}, 9), ({"optimizer": Adafactor(weight_decay=0.01)}, 12)],
    ids=["full, at once", "full, late", "lora with dropout", "adafactor"],
)
def test_a_killed_run_resumes_to_the_same_bytes(make_job: Make, progress: Any, fields: dict[str, Any], calls: int) -> None:
    fields = {"checkpoint_seconds": 0.0, **fields}
    undisturbed, killed = make_job("undisturbed", **fields), make_job("killed", **fields)
    tune(undisturbed, progress)
    killed_after(killed, calls)
    torch.manual_seed(1234)  # a new process starts with another state of the global generator
    meter = tune(killed, progress)
    assert_same_files(undisturbed, killed)
    if calls > 5:
        assert meter["resumed_from_step"] > 0


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("which", [1, -1], ids=["first step", "last step"])
def test_ctrl_c_loses_no_step(make_job: Make, progress: Any, which: int) -> None:
    undisturbed, asked = make_job("undisturbed"), make_job("asked")
    tune(undisturbed, progress)
    last = which if which > 0 else result(undisturbed)["steps"]
    asked_at: list[float] = []

    def ask(done: float, total: float, unit: str, **figures: Any) -> None:
        progress(done, total, unit, **figures)
        if figures["step"] == last and not asked_at:
            asked_at.append(done)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        tune(asked, ask)
    assert tune(asked, progress)["resumed_from_step"] == last
    assert_same_files(undisturbed, asked)


def test_a_damaged_checkpoint_costs_a_step_and_nothing_else(make_job: Make, progress: Any) -> None:
    undisturbed, killed = make_job("undisturbed", checkpoint_seconds=0.0), make_job("killed", checkpoint_seconds=0.0)
    tune(undisturbed, progress)
    killed_after(killed, 14)
    newest = max((killed.scratch_dir / "checkpoints").iterdir())
    content = bytearray((newest / "rank-0.safetensors").read_bytes())
    content[-3] ^= 1
    (newest / "rank-0.safetensors").write_bytes(content)
    meter = tune(killed, progress)
    assert meter["damaged_checkpoints"] == [newest.name]
    assert meter["resumed_from_step"] == int(newest.name.removeprefix("step-")) - 1
    assert_same_files(undisturbed, killed)


def test_a_full_disk_at_a_checkpoint_does_not_stop_the_run(make_job: Make, progress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from campana.errors import StoreError
    from campana.tuning.checkpoint import Checkpoints

    undisturbed, full = make_job("undisturbed"), make_job("full", checkpoint_seconds=0.0)
    tune(undisturbed, progress)

    def refuse(*args: Any) -> None:
        raise StoreError("no space left on device")

    monkeypatch.setattr(Checkpoints, "save", refuse)
    meter = tune(full, progress)
    assert len(meter["failed_checkpoints"]) == 11
    assert_same_files(undisturbed, full)


def test_the_cut_into_micro_batches_moves_only_rounding(make_job: Make, progress: Any) -> None:
    wide, narrow = make_job("wide", micro_batch_tokens=1000), make_job("narrow", micro_batch_tokens=10)
    tune(wide, progress)
    tune(narrow, progress)
    for left, right in zip(rows(wide), rows(narrow), strict=True):
        assert left.keys() == right.keys()
        assert list(left.values()) == pytest.approx(list(right.values()), rel=2e-3)
    left, right = (load_file(job.out_dir / "model" / "model.safetensors") for job in (wide, narrow))
    assert max((left[name] - right[name]).abs().max().item() for name in left) < 1e-3
    assert result(wide)["flops"] == result(narrow)["flops"]


def test_a_budget_shortens_the_steps_and_the_schedule(make_job: Make, progress: Any) -> None:
    job = make_job(budget=0.5, export=False)
    tune(job, progress)
    made = [row for row in rows(job) if "loss" in row]
    assert len(made) == 6
    assert made[-1]["lr"] < 0.3 * job.learning_rate
    assert [row["step"] for row in rows(job) if "validation_loss" in row] == [0, 2, 4, 6]
    assert not (job.out_dir / "model").exists()


def test_a_trial_that_diverges_is_a_result(make_job: Make, progress: Any) -> None:
    job = make_job(learning_rate=1e38, export=False)
    tune(job, progress)
    made = result(job)
    assert made["diverged"]["step"] >= 2
    assert "not a number" in made["diverged"]["reason"]
    assert made["final_validation_loss"] is None
    assert rows(job)[-1]["loss"] is None


def test_a_run_that_diverges_fails_with_the_step_and_what_to_try(make_job: Make, progress: Any) -> None:
    job = make_job(learning_rate=1e38)
    with pytest.raises(StageFailed, match=r"step \d+: the .* is not a number\nhint: lower the learning rate"):
        tune(job, progress)
    assert not (job.out_dir / "model").exists()


def test_dropout_follows_from_the_seed(make_job: Make, progress: Any) -> None:
    def losses(name: str, **fields: Any) -> list[float]:
        job = make_job(name, method=Lora(rank=4, dropout=0.5), epochs=1.0, export=False, learning_rate=1e-2, **fields)
        tune(job, progress)
        return [row["loss"] for row in rows(job) if "loss" in row]

    torch.manual_seed(7)
    first = losses("first")
    torch.manual_seed(8)
    assert losses("second") == first
    dropless = make_job("dropless", method=Lora(rank=4), epochs=1.0, export=False, learning_rate=1e-2)
    tune(dropless, progress)
    assert [row["loss"] for row in rows(dropless) if "loss" in row] != first


@pytest.mark.parametrize("schedule", ["constant", "wsd"])
def test_other_schedules_lower_the_loss_too(make_job: Make, progress: Any, schedule: Any) -> None:
    job = make_job(schedule=Schedule(kind=schedule, warmup=0.1), export=False, num_evaluations=1)
    tune(job, progress)
    assert result(job)["final_validation_loss"] < result(job)["initial_validation_loss"]


def test_bf16_keeps_fp32_masters_and_follows_fp32(make_job: Make, progress: Any) -> None:
    exact, rounded = make_job("exact", epochs=1.0), make_job("rounded", epochs=1.0, precision="bf16")
    tune(exact, progress)
    tune(rounded, progress)
    weights = load_file(rounded.out_dir / "model" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}
    assert result(rounded)["final_validation_loss"] == pytest.approx(result(exact)["final_validation_loss"], rel=5e-3)
    assert result(rounded)["final_validation_loss"] != result(exact)["final_validation_loss"]


def test_bf16_lora_keeps_frozen_matrices_in_bf16_and_adapters_in_fp32(make_job: Make, progress: Any) -> None:
    exact, rounded = (make_job(name, epochs=1.0, method=Lora(rank=4), precision=name, learning_rate=1e-2) for name in ("fp32", "bf16"))
    tune(exact, progress)
    tune(rounded, progress)
    adapter = load_file(rounded.out_dir / "model" / "adapter_model.safetensors")
    assert {w.dtype for w in adapter.values()} == {torch.float32}
    assert result(rounded)["final_validation_loss"] == pytest.approx(result(exact)["final_validation_loss"], rel=1e-2)


def test_rows_that_teach_nothing_and_no_rows_are_errors(make_job: Make, progress: Any, tmp_path: Path) -> None:
    from campana.data.prepared import RowWriter

    def job(name: str, count: int, data: Path) -> TuneJob:
        data.mkdir()
        for file in ("train", "validation"):
            with RowWriter(data / f"{file}.arrow") as writer:
                if count:
                    columns = {"ids": [[4, 5, 6]] * count, "supervised": [[False] * 3] * count}
                    writer.write({**columns, "num_supervised": [0] * count, "source": ["x:1"] * count})
        return make_job(name, data_dir=data)

    with pytest.raises(DataError, match="2 of 2 train rows have no supervised token, the first is row 0"):
        tune(job("zero", 2, tmp_path / "zero-data"), progress)
    with pytest.raises(DataError, match="there are no train rows"):
        tune(job("none", 0, tmp_path / "none-data"), progress)


@pytest.mark.parametrize("token", [211, -1, 10**8])
def test_a_token_that_the_model_lacks_is_refused_with_its_row(make_job: Make, progress: Any, tmp_path: Path, token: int) -> None:
    from campana.data.prepared import RowWriter

    data = tmp_path / "data"
    data.mkdir()
    for file, last in (("train", token), ("validation", 5)):
        with RowWriter(data / f"{file}.arrow") as writer:
            ids = [[4, 5, 6], [4, 5], [4, 5, 6, last], [4, 5]]
            masks = [[False] + [True] * (len(row) - 1) for row in ids]
            writer.write({"ids": ids, "supervised": masks, "num_supervised": [sum(m) for m in masks], "source": list("abcd")})
    with pytest.raises(DataError, match=r"train row 2 \(c\) has a token of a number that the model's 211 do not reach"):
        tune(make_job("lacks", data_dir=data), progress)


def test_rows_beyond_learned_positions_are_refused() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    learned = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=64, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2))
    refuse_beyond(learned, 64)
    with pytest.raises(ModelError, match="65 tokens is longer than the 64 positions") as caught:
        refuse_beyond(learned, 65)
    assert caught.value.hint == "tune: {max_length: 64}"
    sizes = {"vocab_size": 64, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    rotary = LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=64))  # an embedding of 64 words is no table of positions
    refuse_beyond(rotary, 65)


def test_without_validation_rows_the_result_says_so(make_job: Make, progress: Any, data_dir: Path, tmp_path: Path) -> None:
    import shutil

    from campana.data.prepared import RowWriter

    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copyfile(data_dir / "train.arrow", folder / "train.arrow")
    with RowWriter(folder / "validation.arrow"):
        pass
    job = make_job(data_dir=folder, epochs=0.2, export=False)
    tune(job, progress)
    made = result(job)
    assert made["final_validation_loss"] is None
    assert any("held-out loss was not measured" in w for w in made["warnings"])
    assert any("optimiser steps" in w for w in made["warnings"])


def test_progress_reaches_the_total(make_job: Make) -> None:
    told: list[tuple[float, float, str, dict[str, Any]]] = []
    job = make_job(export=False)
    tune(job, lambda done, total, unit, **figures: told.append((done, total, unit, figures)))
    done = [row[0] for row in told]
    assert done == sorted(done)
    assert told[-1][0] == told[-1][1] == result(job)["tokens"]
    assert told[-1][2] == "tokens"
    assert {"loss", "tokens_per_second", "step", "steps"} <= told[-1][3].keys()
    assert np.isfinite(told[-1][3]["loss"])
