"""How fast and how big a reader's training and answering are here: a few steps and some questions, by the code of the stages.

    profile = read_train_profile(spec, files, work, out_dir, cache_dir)
    profile = read_answer_profile(spec, out_dir / "model", suite_path, folder, cache_dir)

It owns how long those measurements are. A training run leaves a reader, with which answering is measured.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campana.errors import StageFailed
from campana.forecast.children import Others, in_child, line, silent
from campana.forecast.profile import ReadAnswerProfile, ReadTrainProfile

if TYPE_CHECKING:
    from campana.reading.examples import Example

STEPS, FIRST_STEPS = 16, 4
"""Optimiser steps of the measured run, and how many of them are not timed: they take memory for the first time."""
HEAVY_STEPS = 2
"""Of the run that only reads the largest step's questions, for the peak."""
TOKENS_A_QUESTION = 64
"""The least that is reckoned with, when questions for the measured steps are chosen."""
BLOCK = 16
"""Neighbouring questions that are chosen together: counterparts that people wrote stand beside their question."""
HELD_OUT = 48
FEW_QUESTIONS, MANY_QUESTIONS = 48, 192


@dataclass(frozen=True)
class ReadingFiles:
    """What a `read_train` stage reads."""

    start: Path
    train: Path
    held_out: Path
    made: Path | None


def read_train_profile(spec: Any, files: ReadingFiles, work: Mapping[str, Any], out_dir: Path, cache_dir: Path) -> ReadTrainProfile:
    """Train for a few steps as a `read_train` stage that does this work (`contents.reading_work`). The reader stays in `out_dir`."""
    others = Others()
    heavy = _peak(spec, files, work["heavy"], out_dir.with_name(out_dir.name + "-heavy"), cache_dir)  # first: the host hands out memory
    found = in_child(run_read_train, out_dir.with_suffix(".json"), spec, files, out_dir, cache_dir, STEPS, None)
    token_bytes = 0.0
    if spec.objective.reads_vectors and len(work["heavy"]) > 1:  # how many rows its steps read, the data decides
        half = _peak(spec, files, work["heavy"][::2], out_dir.with_name(out_dir.name + "-half"), cache_dir)
        more = heavy["most_tokens"] - half["most_tokens"]
        token_bytes = max(0.0, (heavy["peak_memory_bytes"] - half["peak_memory_bytes"]) / more) if more > 0 else 0.0
    busy = others.share()
    tokens, told = found["tokens"], found["told"]
    if len(told) != len(tokens) or len(told) <= FIRST_STEPS:
        raise StageFailed("too few steps were measured")
    seconds = {phase: spent * (1 - busy) for phase, spent in found["seconds"].items()}
    spans = zip(told[FIRST_STEPS - 1 :], told[FIRST_STEPS:], tokens[FIRST_STEPS:], strict=False)
    token_seconds = statistics.median((end - start) / count for start, end, count in spans) * (1 - busy)
    fit_seconds = found["find_seconds"] * (1 - busy)
    return ReadTrainProfile(
        load_seconds=seconds["load"],
        other_seconds=max(0.0, found["wall"] - sum(found["seconds"].values())) * (1 - busy),
        first_seconds=max(0.0, seconds["train"] - token_seconds * sum(tokens)),
        token_seconds=token_seconds,
        validation_token_seconds=seconds["validate"] / (2 * found["validated_tokens"]),
        fit_token_seconds=fit_seconds / found["find_tokens"],
        export_seconds=max(0.0, seconds["export"] - fit_seconds),
        peak_bytes=max(found["peak_memory_bytes"], heavy["peak_memory_bytes"]),
        peak_tokens=heavy["most_tokens"],
        token_bytes=token_bytes,
        model_bytes=sum(path.stat().st_size for path in (out_dir / "model").iterdir()),
        busy=busy,
    )


def _peak(spec: Any, files: ReadingFiles, only: Sequence[str], out_dir: Path, cache_dir: Path) -> dict[str, Any]:
    """Train on a few questions: the peak, and the tokens of the largest step."""
    found = in_child(run_read_train, out_dir.with_suffix(".json"), spec, files, out_dir, cache_dir, HEAVY_STEPS, list(only))
    return {"peak_memory_bytes": found["peak_memory_bytes"], "most_tokens": max(found["tokens"])}


def run_read_train(
    spec: Any, files: ReadingFiles, out_dir: Path, cache_dir: Path, num_steps: int, only: Sequence[str] | None
) -> dict[str, Any]:
    """A short run of the trainer: when each step was done and how many tokens it read, phases, peak; and how long the fit reads.

    `only`: ids of the questions that it draws; None: some of all.
    """
    from campana.reading.files import load_examples
    from campana.reading.reader import Reader
    from campana.reading.training.data import training_data
    from campana.reading.training.job import ReadTrainJob, train_reader
    from campana.reading.training.questions import TrainingTable

    data = training_data(files.train, files.made, spec.made_as)
    questions = spec.questions
    if only is None:
        examples = blocks(data.examples, num_steps * spec.batch_tokens // TOKENS_A_QUESTION)
    else:
        wanted = frozenset(only)
        examples = [example for example in data.examples if example.id in wanted]
        questions = "all" if questions == "balanced" else questions  # all of them, whatever their kinds
    chosen = {example.id for example in examples}
    held_out = of_both_kinds(load_examples(files.held_out), HELD_OUT)
    told: list[float] = []
    job = ReadTrainJob(
        start_dir=files.start,
        examples=examples,
        families=[family for family in data.families if family.id in chosen],
        held_out=held_out,
        out_dir=out_dir,
        scratch_dir=out_dir.with_name(out_dir.name + "-scratch"),
        objective=spec.objective,
        steps=num_steps,
        plain_steps=0,
        questions=questions,
        batch_tokens=spec.batch_tokens,
        learning_rate=1e-6,
        schedule=spec.schedule,
        optimizer=spec.optimizer,
        max_grad_norm=spec.max_grad_norm,
        dropout=spec.dropout,
        precision=spec.precision,
        seed=0,
        settings=spec.settings,
        fit="temperature",
        num_evaluations=1,
        checkpoint_seconds=math.inf,
        cache_dir=cache_dir,
    )
    start = time.perf_counter()
    meter = train_reader(job, lambda *_, **__: told.append(time.perf_counter()))
    wall = time.perf_counter() - start
    reader = Reader.load(out_dir / "model")
    start = time.perf_counter()
    list(reader.find(held_out))
    find_seconds = time.perf_counter() - start
    tested = TrainingTable.build(held_out, (), reader.layout, reader.settings)
    rows = [json.loads(row) for row in (out_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "told": told,
        "tokens": [row["tokens"] for row in rows if "tokens" in row],
        "seconds": meter["seconds"],
        "wall": wall,
        "peak_memory_bytes": meter["peak_memory_bytes"],
        "validated_tokens": int(tested.lengths[tested.units(questions)].sum()),
        "find_seconds": find_seconds,
        "find_tokens": int(tested.lengths.sum()),
    }


def blocks(examples: Sequence[Example], count: int) -> list[Example]:
    """At least so many examples where there are, in blocks taken evenly."""
    num_blocks = -(-count // BLOCK)
    if num_blocks * BLOCK >= len(examples):
        return list(examples)
    starts = [k * (len(examples) - BLOCK) // max(1, num_blocks - 1) for k in range(num_blocks)]
    places = sorted({start + k for start in starts for k in range(BLOCK)})
    return [examples[place] for place in places]


def of_both_kinds(examples: Sequence[Example], count: int) -> list[Example]:
    """So many of the examples that say whether they have an answer, half of each kind, taken evenly."""
    found: list[Example] = []
    for answerable in (True, False):
        kind = [example for example in examples if example.answerable is answerable]
        found += [kind[k * len(kind) // (count // 2)] for k in range(min(count // 2, len(kind)))]
    return list({example.id: example for example in found}.values())


def read_answer_profile(spec: Any, reader_dir: Path, suite_path: Path, out_dir: Path, cache_dir: Path) -> ReadAnswerProfile:
    """Answer some questions of a `read_answer` stage's suite."""
    others = Others()
    found = in_child(run_read_answer, out_dir.with_suffix(".json"), spec, reader_dir, suite_path, out_dir, cache_dir)
    quiet = 1 - others.share()
    few, many = found["few"], found["many"]
    score_seconds, question_seconds = line([few["questions"], many["questions"]], [each["seconds"]["score"] for each in (few, many)])
    return ReadAnswerProfile(
        load_seconds=few["seconds"]["load"] * quiet,  # of the first call, as in a stage's process
        token_seconds=many["seconds"]["read"] / many["tokens"] * quiet,
        score_seconds=score_seconds * quiet,
        score_question_seconds=question_seconds * quiet,
        other_seconds=max(0.0, few["wall"] - sum(few["seconds"].values())) * quiet,
        peak_bytes=many["peak_memory_bytes"],
        num_questions=many["questions"],
        question_bytes=many["disk_bytes"] / many["questions"],
        busy=1 - quiet,
    )


def run_read_answer(spec: Any, reader_dir: Path, suite_path: Path, out_dir: Path, cache_dir: Path) -> dict[str, Any]:
    """A reader's answers to few and to many questions, by the stage's code: both meters."""
    from campana.reading.suite import answer_questions

    found: dict[str, Any] = {}
    for name, count in (("few", FEW_QUESTIONS), ("many", MANY_QUESTIONS)):
        folder = out_dir / name
        folder.mkdir(parents=True)
        start = time.perf_counter()
        meter = answer_questions(
            reader_dir=reader_dir,
            suite_path=suite_path,
            max_items=min(count, spec.max_items or count),
            precision=spec.precision,
            out_dir=folder,
            progress=silent,
            cache_dir=cache_dir,
        )
        wall = time.perf_counter() - start
        found[name] = {**meter, "wall": wall, "disk_bytes": sum(path.stat().st_size for path in folder.iterdir())}
    return found
