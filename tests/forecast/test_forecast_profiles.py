"""Profiles: laws of the arithmetic, the past's correction, and warnings that name the field to change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.core.graph import by_key
from campana.core.spec import Expected, Resources
from campana.core.store import Store
from campana.data.packing import plan_steps
from campana.forecast.calibration import Calibration, Facts
from campana.forecast.children import line
from campana.forecast.history import History
from campana.forecast.known import Known, model_fact, prompts_fact, rows_fact, tune_profile_name
from campana.forecast.packs import RowLengths, step_packs, training_passes
from campana.forecast.predict import Forecaster, missing_knowledge, predict
from campana.forecast.profile import TuneProfile, counted_tuning_bytes
from campana.forecast.timed_answers import reading_rate, whole_lengths
from campana.forecast.timed_tuning import (
    EPOCH_STEPS,
    EPOCHS,
    LARGE_SHARE,
    SEVERAL_EPOCH_STEPS,
    SEVERAL_EPOCHS,
    STEP_TOKENS,
    fitted,
)
from campana.forecast.totals import add_up, warnings
from campana.models.shape import Shape
from campana.native.build import BF16, FP32
from campana.stages.tune import Tune
from campana.study import Study, load_study
from campana.tuning.methods.full import Full
from campana.tuning.methods.lora import Lora

SHAPE = Shape(49152, 576, 30, 9, 3, 64, 1536, tied=True)
PROFILE = TuneProfile(
    load_seconds=2.0,
    other_seconds=0.2,
    first_seconds=0.5,
    pack_seconds=0.05,
    flop_seconds=1e-11,
    step_seconds=2e-9,
    export_seconds=0.5,
    memory_offset_bytes=6e8,
    compiled=True,
)


def passes_of(num_rows: int, micro: int = 512) -> Any:
    sizes = np.full(num_rows, 64, np.int64)
    rows = RowLengths(sizes, sizes, sizes // 2)
    return training_passes(rows, rows, batch_tokens=1024, micro_batch_tokens=micro, epochs=1, budget=1.0, num_evaluations=1, seed=0)


@given(rows=st.integers(1, 400), more=st.integers(16, 400))
@settings(deadline=None, max_examples=30)
def test_more_rows_never_take_less_time(rows: int, more: int) -> None:
    for method in (Full(), Lora()):
        few, many = (PROFILE.seconds(passes_of(count), SHAPE, method, export=True) for count in (rows, rows + more))
        assert few < many
    assert PROFILE.seconds(passes_of(rows), SHAPE, Lora(), export=True) < PROFILE.seconds(passes_of(rows), SHAPE, Full(), export=True)


@given(tokens=st.integers(1, 20_000))
@settings(deadline=None, max_examples=30)
def test_the_largest_pack_is_the_largest_that_fits(tokens: int) -> None:
    def memory(pack: int) -> int:
        return PROFILE.memory_bytes(pack, SHAPE, Lora(), "fp32", several=True)

    limit = memory(tokens)
    found = PROFILE.largest_pack(limit, SHAPE, Lora(), "fp32")
    assert memory(found) <= limit < memory(found + 1)


def test_weights_gradients_and_state_of_a_known_model() -> None:
    assert counted_tuning_bytes(0, SHAPE, Full(), "fp32", several=True, compiled=True) == 16 * 134_515_008


def test_gradients_take_the_place_of_activations_in_a_step_of_one_pack() -> None:
    def counted(tokens: int, *, several: bool) -> int:
        return counted_tuning_bytes(tokens, SHAPE, Full(), "bf16", several=several, compiled=True)

    learning, output = 134_515_008, 49_152 * 576
    assert counted(0, several=False) == counted(0, several=True) == 16 * learning
    assert counted(2000, several=True) - counted(2000, several=False) == 4 * (learning - output)  # the output layer's is made ahead


@given(st.floats(0, 5), st.floats(1e-3, 5))
@settings(deadline=None, max_examples=30)
def test_a_line_is_found_again(fixed: float, slope: float) -> None:
    amounts = [1e9, 2e9, 5e9]
    found = line(amounts, [fixed + slope * amount / 1e9 for amount in amounts])
    assert found[0] == pytest.approx(fixed, abs=1e-6)
    assert found[1] * 1e9 == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_one_slow_measurement_does_not_move_the_line() -> None:
    amounts = [1.0, 2.0, 3.0, 4.0, 5.0]
    times = [1.5, 2.0, 2.5, 9.0, 3.5]
    assert line(amounts, times) == pytest.approx((1.0, 0.5))


def test_the_first_step_and_its_optimiser_are_told_apart() -> None:
    work = [136, 65, 141, 60, 131, 70]
    spans = [0.5 + amount / 100 for amount in work]
    spans[0] += 0.25
    spans[1] += 3.0  # the optimiser's state is made before the second pack is told of
    assert fitted(spans, work, 2) == pytest.approx((0.5, 0.01, 3.25))


@pytest.mark.parametrize(
    ("opening", "reads", "expected"),
    [
        ([3.0, 1.0], [4e9, 2e9], 1e-9),
        ([0.5, 0.4], [2e9, 2e9], 0.25e-9),  # a suite of one prompt: both calls read the same
        ([0.4, 0.5], [2e9, 1e9], 0.0),  # noise
    ],
    ids=["two sizes", "one size", "noise"],
)
def test_the_rate_of_reading_is_never_absurd(opening: list[float], reads: list[float], expected: float) -> None:
    assert reading_rate(opening, reads) == pytest.approx(expected)


def test_cut_answers_are_given_the_lengths_that_they_would_have_had() -> None:
    rng = np.random.default_rng(0)
    true = np.minimum(rng.geometric(0.05, 2000), 60)
    found = whole_lengths(np.minimum(true, 16).tolist(), (true > 16).tolist(), 60)
    assert np.mean(found) == pytest.approx(np.mean(true), rel=0.05)
    assert max(found) <= 60
    assert whole_lengths([16, 16], [True, True], 48) == [48, 48]
    assert whole_lengths([3, 5], [False, False], 48) == [3, 5]


@pytest.fixture
def study(toy: Path) -> Study:
    return load_study(toy / "study.yaml")


def tune_of(study: Study, arm: int) -> Any:
    return study.arms[arm].stages.tune[0]


def known_rows(study: Study, cache: Path, longest: int) -> None:
    """Facts as the probe leaves them."""
    lengths = [[longest] * 40, [longest - 1] * 40, [longest // 2] * 40]
    for arm in study.arms[:2]:
        assert arm.stages.prepare is not None
        fact = {"train": lengths, "validation": [column[:8] for column in lengths], "seconds": 0.5, "peak_memory_bytes": 10**8}
        Facts(cache).put(rows_fact(arm.stages.prepare), {**fact, "disk_bytes": 1000})


def calibrated(study: Study, cache: Path, **changes: float) -> Calibration:
    calibration = Calibration.load(cache)
    shape = Known(Store(cache / "none"), Facts(cache)).shape(study.arms[0].stages.model)
    assert shape is not None
    for arm in (0, 1):
        name = tune_profile_name(shape, tune_of(study, arm).spec)
        calibration.tune[name] = TuneProfile(**{**PROFILE.as_json(), **changes})
    calibration.save()
    return calibration


def test_what_all_prompts_begin_with_is_counted_once_where_the_engine_reads_it_once(study: Study, tmp_path: Path) -> None:
    stage, cache = study.arms[0].stages.generate[0], tmp_path / "cache"
    Facts(cache).put(prompts_fact(stage), {"turns": [[40], [31], [35]], "shared": 24})
    forecaster, answers = Forecaster(Store(tmp_path / "store"), cache), [[5], [3], [1]]
    prompts = forecaster.known.prompts(stage)
    assert prompts is not None
    assert prompts == [[40], [31], [35]]
    read: list[int] = []
    for paged in (False, True):
        calls = forecaster.answering(stage, prompts, answers, paged=paged)
        assert calls is not None
        read.append(calls[0].read.read_tokens)
    assert read == [106, 106 - 3 * 24]


def test_what_prompts_began_with_is_remembered_by_the_stage_that_read_them(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, stage = Known(Store(tmp_path / "store"), Facts(tmp_path)), study.arms[0].stages.generate[0]
    assert known.shared(stage) == 0, "nothing is known"
    meter = {"num_items": 10, "shared_tokens": 9 * 24}
    recipes = [{"precision": "bf16", "engine": {"kind": "packed"}}, {"precision": "fp32", "engine": {"kind": "packed"}}]
    alike = [SimpleNamespace(key=recipe["precision"], recipe=recipe) for recipe in recipes]
    meters = {"bf16": {"num_items": 10, "shared_tokens": 9}, "fp32": meter}
    monkeypatch.setattr(known, "_alike", lambda _: alike)
    monkeypatch.setattr(Store, "manifest", lambda _, key: SimpleNamespace(meter=meters[key]))
    assert known.shared(stage) == 24
    del meter["shared_tokens"]
    assert known.shared(stage) == 0, "a stage of before"


def test_nothing_is_made_up_where_nothing_is_known(study: Study, tmp_path: Path) -> None:
    stages = list(by_key(study.targets).values())
    told = predict(stages, Store(tmp_path / "store"), tmp_path / "cache")
    tune, model = tune_of(study, 0), study.arms[0].stages.model
    assert (told[tune.key].seconds, told[tune.key].memory_bytes) == (None, None)
    assert told[model.key].disk_bytes, "a folder of this machine tells its shape without being brought in"
    totals = add_up(stages, told, 3.6)
    assert totals.unknown > 0
    needs = missing_knowledge(stages, Store(tmp_path / "store"), tmp_path / "cache")
    assert len(needs.tune) == 2
    assert needs.rows
    assert not needs.models
    assert "tuning methods (2)" in str(needs)


def test_what_is_known_is_predicted_and_kept_with_its_calibration(study: Study, tmp_path: Path) -> None:
    known_rows(study, tmp_path, 60)
    calibration = calibrated(study, tmp_path)
    stages = list(by_key(study.targets).values())
    told = predict(stages, Store(tmp_path / "store"), tmp_path)
    full, lora = (told[tune_of(study, arm).key] for arm in (0, 1))
    assert full.seconds is not None
    assert lora.memory_bytes is not None
    assert full.seconds > PROFILE.load_seconds
    assert full.calibration == calibration.name
    assert Calibration.load(tmp_path).tune == calibration.tune
    assert not missing_knowledge(stages, Store(tmp_path / "store"), tmp_path).tune


def test_a_profile_that_was_measured_beside_others_is_measured_again_once_it_is_quiet(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_rows(study, tmp_path, 60)
    calibrated(study, tmp_path, busy=0.5)
    stages = list(by_key(study.targets).values())
    for load, wanted in ((90.0, 0), (3.0, 2)):
        monkeypatch.setattr("psutil.cpu_percent", lambda interval, load=load: load)
        assert len(missing_knowledge(stages, Store(tmp_path / "store"), tmp_path).tune) == wanted


@pytest.mark.parametrize(
    ("longest", "limit", "hint"),
    [(60, 700_000_000, "tune.micro_batch_tokens"), (2000, 700_000_000, "tune.max_length"), (60, 10**8, "a smaller model")],
)
def test_a_warning_names_the_field_to_change(study: Study, tmp_path: Path, longest: int, limit: int, hint: str) -> None:
    known_rows(study, tmp_path, longest)
    calibrated(study, tmp_path, memory_offset_bytes=limit * 0.999 if "tune" in hint else limit * 2.0)
    stages = [tune_of(study, 1)]
    store = Store(tmp_path / "store")
    told = predict(stages, store, tmp_path)
    found = warnings(stages, told, store, tmp_path, memory_bytes=limit, free_bytes=10**12)
    assert [each.what for each in found] == ["memory"]
    assert hint.removeprefix("tune.") in found[0].hint
    assert warnings(stages, told, store, tmp_path, memory_bytes=10**12, free_bytes=10**12) == []


@pytest.mark.parametrize("kind", ["tune", "generate"])
def test_before_anything_is_measured_the_least_that_is_known_is_told(study: Study, tmp_path: Path, kind: str) -> None:
    stages = [tune_of(study, 0) if kind == "tune" else study.arms[0].stages.generate[0]]
    store = Store(tmp_path / "store")
    (found,) = warnings(stages, {}, store, tmp_path, memory_bytes=1000, free_bytes=10**12)
    assert (found.what, found.stages) == ("memory", (stages[0].key,))
    assert "needs at least" in found.text
    assert warnings(stages, {}, store, tmp_path, memory_bytes=10**9, free_bytes=10**12) == []


def test_a_disk_that_is_too_small_is_told(study: Study, tmp_path: Path) -> None:
    stages = [tune_of(study, 0)]
    told = {stages[0].key: Expected(seconds=900.0, memory_bytes=1, disk_bytes=10**9)}
    (found,) = warnings(stages, told, Store(tmp_path / "store"), tmp_path, memory_bytes=10**12, free_bytes=10**9)
    assert found.what == "disk"
    assert "campana gc" in found.hint


def publish(store: Store, stage: Any, took: float, peak: int, expected: Expected | None) -> None:
    from campana.core.keys import recipe
    from campana.core.task import Task

    lock = store.lock(stage.key)
    assert lock is not None
    with lock:
        out_dir, _ = store.begin(stage.key)
        (out_dir / "tune.json").write_text("{}")
        execution = Task.of(stage, store.root, Resources(), expected).execution(stage.spec)
        store.publish(stage.key, recipe=recipe(stage), label="tune", execution=execution, meter={"peak_memory_bytes": peak}, seconds=took)


def seeds(stage: Any, count: int) -> list[Any]:
    from campana.core.spec import Stage

    assert isinstance(stage.spec, Tune)
    return [Stage(stage.spec.model_copy(update={"seed": 100 + k}), stage.inputs, label=f"seed {k}") for k in range(count)]


def test_the_past_corrects_the_next_prediction(study: Study, tmp_path: Path) -> None:
    known_rows(study, tmp_path, 60)
    calibrated(study, tmp_path)
    store = Store(tmp_path / "store")
    tune = tune_of(study, 0)
    first = predict([tune], store, tmp_path)[tune.key]
    assert first.seconds is not None
    assert first.memory_bytes is not None
    for stage, slower in zip(seeds(tune, 3), (1.1, 1.2, 9.0), strict=True):
        publish(store, stage, first.seconds * slower, round(first.memory_bytes * 0.9), first)
    second = predict([tune], store, tmp_path)[tune.key]
    assert second.seconds == pytest.approx(first.seconds * 1.2)
    assert second.memory_bytes == pytest.approx(first.memory_bytes * 0.9, rel=1e-6)
    for stage in seeds(tune, 7)[3:]:  # corrected predictions that came true keep the correction
        publish(store, stage, second.seconds, second.memory_bytes, second)
    third = predict([tune], store, tmp_path)[tune.key]
    assert third.seconds == pytest.approx(second.seconds)


def test_predictions_of_another_calibration_teach_nothing(study: Study, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for stage in seeds(tune_of(study, 0), 4):
        publish(store, stage, 5.0, 10, Expected(1.0, 10, 10, calibration="other"))
    assert History(store, Known(store, Facts(tmp_path)).index, "this").correction("tune", "seconds") == 1.0


def test_a_model_that_nobody_has_seen_is_asked_for(study: Study, tmp_path: Path) -> None:
    from campana.core.spec import Stage
    from campana.stages.model import Model

    hidden = Stage(Model.model_validate({"source": {"kind": "hub", "repository": "a/b", "revision": "c" * 40}}), label="model")
    store = Store(tmp_path / "store")
    assert hidden.key in missing_knowledge([hidden], store, tmp_path).models
    config = {"vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    Facts(tmp_path).put(model_fact(hidden), {"config": {**config, "model_type": "llama"}, "tokenizer_bytes": 10, "seconds": 3.0})
    told = Forecaster(store, tmp_path).of(hidden)
    assert told.seconds == 3.0
    assert told.disk_bytes is not None
    assert not missing_knowledge([hidden], store, tmp_path)


@pytest.mark.parametrize(
    ("kind", "precision", "lacks", "told"),
    [
        ("tune", "bf16", True, True),
        ("tune", "bf16", False, False),
        ("tune", "fp32", True, True),
        ("tune", "fp32", False, False),
        ("answers", "bf16", True, False),
        ("answers", "fp32", True, True),
        ("answers", "fp32", False, False),
    ],
)
def test_a_machine_that_only_lacks_a_compiler_is_told_so(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, precision: str, lacks: bool, told: bool
) -> None:
    wanted = BF16 if precision == "bf16" else FP32
    monkeypatch.setattr("campana.forecast.totals.lacks_compiler", lambda code: lacks and code is wanted)
    monkeypatch.setattr("campana.forecast.totals.lacks_bf16_units", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    stage = tune_of(study, 1) if kind == "tune" else study.arms[1].stages.generate[0]
    stage = dataclasses.replace(stage, spec=stage.spec.model_copy(update={"precision": precision}))
    found = warnings([stage], {}, Store(tmp_path / "store"), tmp_path, memory_bytes=10**12, free_bytes=10**12)
    assert [each.what for each in found] == ["time"] * told
    assert all("gcc" in each.hint for each in found)


@pytest.mark.parametrize(("precision", "lacks", "told"), [("bf16", True, 1), ("bf16", False, 0), ("fp32", True, 0)])
def test_bf16_without_units_for_it_is_told(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, lacks: bool, told: int
) -> None:
    monkeypatch.setattr("campana.forecast.totals.lacks_bf16_units", lambda: lacks)
    monkeypatch.setattr("campana.forecast.totals.lacks_compiler", lambda code: False)
    stages = [tune_of(study, 1), study.arms[1].stages.generate[0]]
    stages = [dataclasses.replace(each, spec=each.spec.model_copy(update={"precision": precision})) for each in stages]
    found = warnings(stages, {}, Store(tmp_path / "store"), tmp_path, memory_bytes=10**12, free_bytes=10**12)
    assert [(each.what, len(each.stages)) for each in found] == [("time", 2)] * told
    assert all("precision: fp32" in each.hint for each in found)


@pytest.mark.parametrize("length", [12, 30, 56])
@pytest.mark.parametrize("several", [True, False])
def test_a_probe_s_packs_are_of_two_sizes(length: int, several: bool) -> None:
    """Else the time a pack could not be told from the time an operation."""
    epoch_steps, epochs = (SEVERAL_EPOCH_STEPS, SEVERAL_EPOCHS) if several else (EPOCH_STEPS, EPOCHS)
    lengths = np.full(round(STEP_TOKENS * epoch_steps / length), length)
    rows = RowLengths(lengths, lengths, lengths // 2)
    micro = round(STEP_TOKENS * LARGE_SHARE) if several else STEP_TOKENS
    packs = [pack.tokens for members in plan_steps(lengths, STEP_TOKENS, epochs, 0) for pack in step_packs(rows, members, micro)]
    assert max(packs) >= 1.5 * min(packs)
