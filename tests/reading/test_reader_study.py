"""A study of readers, whole: from its file to the report, with the plan's answers to what is wrong in it."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_questions import STUDY, world

from campana.errors import DataError, StudyError
from campana.reading.calibration import auroc
from campana.reading.evaluate import Margins
from campana.reading.examples import Example
from campana.reading.files import write_examples
from campana.reading.intervals import intervals
from campana.reading.suite import passage_numbers, questions_of
from campana.reading.triples import Family
from campana.study import Study, load_study

LEARNT = STUDY.replace("    steps: 60\n", "    steps: 120\n").replace("    lr: 5.0e-3\n", "    lr: 3.0e-3\n")
"""STUDY at steps and a rate with which all 24 readers (6 encoders, 2 seeds, 2 objectives) learnt this world; with its own, 23 did."""


def asked(kind: str) -> tuple[list[Example], list[Family]]:
    """The toy world as one document."""
    return world(f"{kind}-", kind)


@pytest.fixture
def folder(study_folder: Callable[[str], Path]) -> Path:
    """A study file and what it names."""
    return study_folder(STUDY)


def changed(folder: Path, *pairs: tuple[str, str]) -> Study:
    """The study with parts of its file replaced."""
    text = STUDY
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    (folder / "changed.yaml").write_text(text, encoding="utf-8")
    return load_study(folder / "changed.yaml")


def test_a_study_of_readers_answers_and_shows_its_figures(folder: Path, campana: Callable[..., tuple[int, str, str]]) -> None:
    (folder / "study.yaml").write_text(LEARNT, encoding="utf-8")
    code, out, err = campana("run", str(folder / "study.yaml"), "--store", str(folder / "store"))
    assert code == 0, err
    report = json.loads(next((folder / "store").rglob("report.json")).read_text(encoding="utf-8"))
    # to answer nothing, or everything, would score 0.5
    assert {arm["name"]: arm["score"]["mean"] > 0.7 for arm in report["arms"]} == {
        "objective=cross_entropy": True,
        "objective=spancl": True,
    }, out
    assert report["measure"]["average"] == "macro"
    assert {category["name"] for category in report["measure"]["categories"]} == {"has answer", "no answer"}
    assert [(found["arm"], found["seed"]) for found in report["reading"]] == [
        (f"objective={name}", seed) for name in ("cross_entropy", "spancl") for seed in (0, 1)
    ]
    for found in report["reading"]:
        assert [at["name"] for at in found["results"]] == ["zero", "fitted", "oracle for exact", "oracle for f1"]
        assert found["always_empty"] == 50.0
        for figure in found["results"][1]["figures"].values():
            assert figure["low"] <= figure["value"] <= figure["high"]
    spans = [line for line in report["costs"]["lines"] if line["label"].startswith("spans")]
    assert [sorted(line["arms"]) for line in spans] == [["objective=cross_entropy", "objective=spancl"]] * 2
    assert all(arm["runs"][0]["flops"] > 0 for arm in report["arms"])
    read = [line for line in report["costs"]["lines"] if line["kind"] == "read_answer"]
    assert len(read) == 4
    assert all(line["flops"] > 0 and line["tokens"] > 0 for line in read)
    for costs in report["costs"]["arms"].values():  # the whole of an arm's work is known: training, and answering besides
        assert costs["total"]["flops"] > costs["making"]["flops"] > 0
    assert set(report["fairness"]["inputs"]) == {"model", "suite", "train", "held_out", "made"}
    page = next((folder / "store").rglob("report.html")).read_text(encoding="utf-8")
    assert 'id="reading"' in page
    assert len(report["items"]) == 16
    twice = LEARNT.replace("    steps: 120\n", "    steps: 240\n")
    (folder / "twice.yaml").write_text(twice, encoding="utf-8")
    code, out, err = campana("plan", str(folder / "twice.yaml"), "--store", str(folder / "store"), "--no-probe", "--json")
    assert code == 0, err
    told = {stage["label"]: stage for stage in json.loads(out)["stages"]}
    for name in ("cross_entropy", "spancl"):
        seconds = told[f"train objective={name} seed=0"]["forecast"]["seconds"]
        assert 0 < seconds < 600
        assert told[f"train objective={name} seed=0"]["forecast"]["memory_bytes"] > 0
        assert told[f"read objective={name} seed=0"]["forecast"]["seconds"] > 0
    again, _, _ = campana("run", str(folder / "study.yaml"), "--store", str(folder / "store"))
    assert again == 0
    assert {line["measured"]["num_failed"] for line in report["costs"]["lines"]} == {0}


def test_one_more_arm_shares_the_first_phase_and_changes_no_other_key(folder: Path) -> None:
    before = load_study(folder / "study.yaml")
    rdrop = "    spancl: {read.objective: {kind: spancl, weight: 0.5}}\n    rdrop: {read.objective: rdrop}\n"
    after = changed(folder, ("    spancl: {read.objective: {kind: spancl, weight: 0.5}}\n", rdrop))
    known = {stage.key for stage in before.targets}
    assert known - {before.measure.key} < {stage.key for stage in after.targets}
    assert {arm.stages.first[0].key for arm in after.arms} == {before.arms[0].stages.first[0].key}


def test_a_changed_batch_answers_anew_but_a_changed_checkpoint_interval_does_not(folder: Path) -> None:
    before = load_study(folder / "study.yaml").measure.key
    assert changed(folder, ("batch_tokens: 256", "batch_tokens: 256\n    checkpoint_seconds: 5")).measure.key == before
    assert changed(folder, ("batch_tokens: 256", "batch_tokens: 128")).measure.key != before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("train: train\n", "train: trian\n", "unknown data set 'trian'"),
        ("suite: asked", "suite: askd", "unknown suite 'askd'"),
        (", format: reading", "", "readers answer questions on passages"),
        ("weight: 0.5", "wieght: 0.5", "weight"),
        ("    steps: 60\n", "    steps: 0\n", "steps"),
        ("read.objective: cross_entropy", "read.objective: crossentropy", "cross_entropy"),
        ("    plain_steps: 10\n", "    plain_steps: 61\n", "plain_steps"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(folder: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(StudyError) as caught:
        changed(folder, (old, new))
    assert said in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.where is not None


@pytest.mark.parametrize(("kind", "said"), [("held_out", "both trained on and held out"), ("test", "both trained on and in the suite")])
def test_documents_on_both_sides_are_refused(folder: Path, kind: str, said: str) -> None:
    write_examples(folder / f"{kind}.jsonl", asked("train")[0])
    with pytest.raises(DataError, match=said):
        load_study(folder / "study.yaml")


def test_held_out_questions_of_one_kind_are_refused(folder: Path) -> None:
    write_examples(folder / "held_out.jsonl", [example for example in asked("held_out")[0] if example.answerable])
    with pytest.raises(DataError, match="a threshold cannot be fitted"):
        load_study(folder / "study.yaml")


def test_an_arm_that_reads_and_one_that_does_not_are_not_compared(folder: Path) -> None:
    arm = "baselines: {chat: {read: null, generate: {suite: asked}}}\n"
    with pytest.raises(StudyError, match="cannot be compared"):
        changed(folder, ("measure: {average: macro}\n", f"measure: {{average: macro}}\n{arm}"))


def test_readers_that_are_one_work_are_refused(folder: Path) -> None:
    with pytest.raises(StudyError, match=r"the same work: they differ in read\.checkpoint_seconds only"):
        changed(
            folder,
            ("cross_entropy: {read.objective: cross_entropy}", "cross_entropy: {read.checkpoint_seconds: 10}"),
            ("spancl: {read.objective: {kind: spancl, weight: 0.5}}", "spancl: {read.checkpoint_seconds: 20}"),
        )


def test_passages_are_numbered_by_their_order_without_a_table_as_wide_as_the_longest() -> None:
    texts = ["b", "a", "x" * 100_000, "b", *map(str, range(1000))]
    examples = [Example(str(number), "?", text, "d") for number, text in enumerate(texts)]
    tracemalloc.start()
    found = passage_numbers(examples)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(found[:4]) == [1001, 1000, 1002, 1001]
    assert peak < 10_000_000


def test_a_smaller_choice_of_questions_is_inside_a_larger_one_and_even(folder: Path) -> None:
    whole = [example.id for example in questions_of(folder / "test.jsonl", None)]
    small, large = (questions_of(folder / "test.jsonl", count) for count in (4, 9))
    assert {example.id for example in small} < {example.id for example in large} < set(whole)
    assert sum(bool(example.answerable) for example in small) == 2
    assert [example.id for example in large] == [name for name in whole if name in {example.id for example in large}]


def columns_of(margins: list[float], has: list[bool], f1: list[float]) -> Margins:
    """Columns of questions whose EM is F1 where it is 1."""
    answerable, worth = np.array(has), np.array(f1)
    answered = np.where(answerable[:, None], np.stack([worth == 1.0, worth], axis=1), 0.0)
    empty = np.where(answerable[:, None], 0.0, np.ones((len(has), 2)))
    ids = tuple(map(str, range(len(has))))
    return Margins(ids, ids, np.array(margins), answerable, answered, empty)


def test_intervals_are_those_of_a_bootstrap_over_passages() -> None:
    random = np.random.default_rng(0)
    passage = np.repeat(np.arange(60), 3)
    has = random.random(180) < 0.5
    margins = random.normal(size=180) - has * 1.0
    columns = columns_of(list(margins), list(has), list(np.where(random.random(180) < 0.6, 1.0, 0.5)))
    found = intervals(columns, passage, 0.0)
    chosen = np.where(margins <= 0.0, columns.answered[:, 1], columns.empty[:, 1])
    assert found["f1"]["value"] == pytest.approx(100 * chosen.mean())
    assert found["auroc"]["value"] == pytest.approx(auroc(margins, ~has))
    drawn: dict[str, list[float]] = {"f1": [], "auroc": [], "has_answer_f1": []}
    for _ in range(2000):
        rows = np.concatenate([np.nonzero(passage == one)[0] for one in random.integers(60, size=60)])
        drawn["f1"].append(100 * chosen[rows].mean())
        drawn["has_answer_f1"].append(100 * chosen[rows][has[rows]].mean())
        drawn["auroc"].append(float(auroc(margins[rows], ~has[rows]) or 0.0))
    for name, values in drawn.items():
        low, high = np.quantile(values, [0.025, 0.975])
        width = high - low
        assert found[name]["low"] == pytest.approx(low, abs=0.15 * width), name
        assert found[name]["high"] == pytest.approx(high, abs=0.15 * width), name


def test_figures_that_no_question_bears_on_are_left_out() -> None:
    found = intervals(columns_of([0.5, -1.0], [True, True], [1.0, 0.5]), np.array([0, 1]), 0.0)
    assert set(found) == {"exact", "f1", "has_answer_exact", "has_answer_f1"}


def test_keys_of_this_study_stay(folder: Path) -> None:
    """What moves these keys makes everybody's readers be trained again."""
    study: Any = load_study(folder / "study.yaml", digest=lambda path: "sha256:" + path.name.ljust(64, "0")[:64].encode().hex()[:64])
    first = study.arms[1].stages
    keys = [stages[0].key[:12] for stages in (first.first, first.tune, first.generate, first.check)]
    assert keys == GOLDEN, keys


GOLDEN = ["7bdebcc58354", "d3f49d70f2d9", "8184130a08a1", "1d090f733579"]
