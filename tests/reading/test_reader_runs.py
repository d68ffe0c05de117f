"""Training runs of readers, whole: what they leave behind, and that a killed run takes the same steps."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from toy_questions import ignore, world

from campana.errors import DataError, StageFailed
from campana.reading.evaluate import evaluate, fitted
from campana.reading.reader import Reader
from campana.reading.settings import Settings
from campana.reading.training.job import ReadTrainJob, train_reader
from campana.reading.training.objective import Objective
from campana.reading.training.objectives.cross_entropy import CrossEntropy
from campana.reading.training.objectives.rdrop import RDrop
from campana.reading.training.objectives.spancl import SpanCL
from campana.tuning.options import Schedule


def test_a_reader_learns_to_answer_and_to_abstain(job: Callable[..., ReadTrainJob]) -> None:
    made = job(steps=120, plain_steps=0, dropout=0.0, learning_rate=5e-3, batch_tokens=400)
    meter = train_reader(made, ignore)
    result = json.loads((made.out_dir / "tune.json").read_text())
    assert result["final_validation_loss"] < result["initial_validation_loss"] / 5
    assert meter["tokens"] == result["tokens"] > 0
    reader = Reader.load(made.out_dir / "model")
    assert reader.about["documents"] == sorted({example.document for example in made.examples})
    scores = evaluate(reader, [replace(example, document="again") for example in made.examples]).results[0].scores
    assert scores.has_answer_f1 is not None
    assert scores.no_answer_accuracy is not None
    assert scores.has_answer_f1 > 90
    assert scores.no_answer_accuracy > 90
    with pytest.raises(DataError, match="trained on"):
        evaluate(reader, made.examples)


@pytest.mark.parametrize("longest", [128, 64], ids=["positions", "tokenizer"])
def test_windows_are_what_the_model_takes_in_training_fit_and_file(job: Callable[..., ReadTrainJob], longest: int) -> None:
    made = job(steps=2, fit="temperature", settings=Settings())
    told = made.start_dir / "tokenizer_config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"model_max_length": longest if longest < 128 else 10**9}))
    more = " Rome is the capital of Italy ." * 40
    long = {name: [replace(each, passage=each.passage + more) for each in getattr(made, name)] for name in ("examples", "held_out")}
    made = replace(made, families=(), **long)
    train_reader(made, ignore)
    reader = Reader.load(made.out_dir / "model")
    assert json.loads((made.out_dir / "model" / "reader.json").read_text())["settings"]["max_length"] == longest
    again = fitted(replace(reader, about={}), made.held_out).threshold
    assert reader.threshold is not None
    assert again is not None
    assert reader.threshold.value == pytest.approx(again.value, abs=1e-5)


def test_the_speed_is_known_from_the_first_step_on(job: Callable[..., ReadTrainJob]) -> None:
    told: list[float] = []

    def progress(done: float, total: float, unit: str, **figures: Any) -> None:
        assert (total, unit) == (6, "steps")
        told.append(figures["tokens_per_second"])

    train_reader(job(), progress)
    assert len(told) == 6
    assert all(0 < speed < 1e7 for speed in told)


class KilledError(Exception):
    """Stands for a kill: the run ends between two steps."""


def die_at(count: int) -> Callable[..., None]:
    def progress(done: float, total: float, unit: str, **figures: object) -> None:
        if done == count:
            raise KilledError

    return progress


@pytest.mark.parametrize("objective", [CrossEntropy(), RDrop(), SpanCL(projection=8), SpanCL(positive="dropout")], ids=str)
def test_a_killed_run_goes_on_to_the_same_bytes(job: Callable[..., ReadTrainJob], objective: Objective) -> None:
    whole = job("whole", objective=objective)
    train_reader(whole, ignore)
    killed = job("killed", objective=objective, checkpoint_seconds=0.0)
    for count in (2, 5):
        with pytest.raises(KilledError):
            train_reader(killed, die_at(count))
    meter = train_reader(killed, ignore)
    assert meter["resumed_from_step"] == 4
    for name in ("metrics.jsonl", "tune.json", "model/model.safetensors", "model/reader.json", "model/config.json"):
        assert (whole.out_dir / name).read_bytes() == (killed.out_dir / name).read_bytes(), name


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("last", [3, 6], ids=["between", "at the last step"])
def test_ctrl_c_loses_no_step(job: Callable[..., ReadTrainJob], last: int) -> None:
    whole, asked = job("whole"), job("asked")
    train_reader(whole, ignore)

    def ask(done: float, *_: object, **__: object) -> None:
        if done == last:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_reader(asked, ask)
    assert train_reader(asked, ignore)["resumed_from_step"] == last
    for name in ("metrics.jsonl", "tune.json", "model/model.safetensors"):
        assert (whole.out_dir / name).read_bytes() == (asked.out_dir / name).read_bytes(), name


def test_the_plain_steps_come_first_and_arms_of_one_seed_see_the_same_questions(job: Callable[..., ReadTrainJob]) -> None:
    rows: dict[str, list[Any]] = {}
    for name, objective in {"ce": CrossEntropy(), "spancl": SpanCL()}.items():
        made = job(name, objective=objective)
        train_reader(made, ignore)
        rows[name] = [json.loads(line) for line in (made.out_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows["spancl"] if "objective" in row]
    assert [row["objective"] for row in steps] == ["cross_entropy"] * 2 + ["spancl"] * 4
    assert rows["ce"][:3] == rows["spancl"][:3], "held-out loss and plain steps are the same"


def test_training_goes_on_from_a_reader_and_remembers_both_documents(job: Callable[..., ReadTrainJob]) -> None:
    first = job("first", steps=3, questions="answerable")
    train_reader(first, ignore)
    examples, _ = world()
    renamed = [replace(example, document="new") for example in examples]
    second = job("second", start_dir=first.out_dir / "model", examples=renamed, steps=4, questions="answerable")
    train_reader(second, ignore)
    stored = json.loads((second.out_dir / "model" / "reader.json").read_text())
    assert stored["about"]["steps"] == 7
    assert stored["about"]["documents"] == sorted({*(example.document for example in first.examples), "new"})
    losses = [json.loads((each.out_dir / "tune.json").read_text()) for each in (first, second)]
    assert losses[1]["initial_validation_loss"] == pytest.approx(losses[0]["final_validation_loss"], rel=1e-6)


@pytest.mark.parametrize("kinds", [(True,), (False,), (None,), ()], ids=str)
def test_questions_that_no_threshold_can_be_fitted_on_are_refused_before_the_first_step(
    job: Callable[..., ReadTrainJob], kinds: tuple[bool | None, ...]
) -> None:
    examples, _ = world("held-", "held out")
    held_out = [replace(example, answerable=kind) for kind in kinds for example in examples]
    with pytest.raises(DataError, match="cannot be fitted"):
        train_reader(job(held_out=held_out, fit="temperature"), die_at(1))


def test_held_out_documents_that_the_first_reader_has_seen_are_refused_before_the_first_step(job: Callable[..., ReadTrainJob]) -> None:
    first = job("first", steps=3)
    train_reader(first, ignore)
    new, _ = world("new-", "new")
    with pytest.raises(DataError, match="was trained on"):
        train_reader(job("second", start_dir=first.out_dir / "model", examples=new, families=(), held_out=first.examples), die_at(1))


def test_bf16_follows_fp32(job: Callable[..., ReadTrainJob]) -> None:
    found: list[float] = []
    for precision in ("fp32", "bf16"):
        made = job(precision, precision=precision, steps=20, dropout=0.0)
        train_reader(made, ignore)
        found.append(json.loads((made.out_dir / "tune.json").read_text())["final_validation_loss"])
    assert found[0] == pytest.approx(found[1], rel=0.05)


def test_a_loss_that_is_no_number_stops_with_a_rate_to_try(job: Callable[..., ReadTrainJob]) -> None:
    with pytest.raises(StageFailed) as caught:
        train_reader(job(learning_rate=1e30, steps=5, schedule=Schedule(warmup=0.0)), ignore)
    assert "lower the learning rate" in (caught.value.hint or "")


def test_what_a_run_lacked_is_told(job: Callable[..., ReadTrainJob]) -> None:
    made = job(objective=SpanCL(), families=(), held_out=())
    train_reader(made, ignore)
    told = json.loads((made.out_dir / "tune.json").read_text())
    assert any("held-out" in text for text in told["warnings"])
    assert any("no question has a counterpart" in text for text in told["warnings"])
    assert told["final_validation_loss"] is None


def test_a_damaged_checkpoint_is_passed_over(job: Callable[..., ReadTrainJob]) -> None:
    whole = job("whole")
    train_reader(whole, ignore)
    made = job("damaged", checkpoint_seconds=0.0)
    with pytest.raises(KilledError):
        train_reader(made, die_at(4))
    newest = sorted((made.scratch_dir / "checkpoints").iterdir())[-1]
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    train_reader(made, ignore)
    assert (whole.out_dir / "metrics.jsonl").read_bytes() == (made.out_dir / "metrics.jsonl").read_bytes()
    shutil.rmtree(made.scratch_dir)
