"""How fast campana's reader is beside a run_qa-style baseline on the same weights, and whether it says the same.

    python benchmarks/reading.py [--parts decode evaluate engines memory serve train] [--questions 6078] [--rounds 3]

Parts: `decode` (logits to spans and to answers), `evaluate` (half A of SQuAD 2.0's dev set, end to end, and how the answers differ),
`engines` (fp32, bf16, ONNX, int8: questions a second), `memory` (a passage of 5,000 to 500,000 characters, each a process of its own),
`serve` (requests a second over HTTP), `train` (optimiser steps). Systems take turns; figures are medians over the rounds. Needs
`../shared/data`. The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import reading_baseline as baseline
import reading_work as work

from campana.executors.environment import start_anew

PARTS = ("decode", "evaluate", "engines", "memory", "serve", "train")


def main() -> None:
    """Measure what the command line names."""
    start_anew()
    from campana.models.cache import default_cache_dir

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--reader", type=Path, help="a reader's folder; default: MiniLM-L6, trained for some minutes, once")
    parser.add_argument("--questions", type=int, nargs="+", default=[500, 2000, 6078], help="sizes of the evaluation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--characters", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.reader = arguments.reader or work.light_reader(default_cache_dir())
    if arguments.characters is not None:
        print(json.dumps(read_long(arguments.reader, arguments.characters)))
        return
    measure = {"decode": decoding, "evaluate": evaluation, "engines": engines, "memory": memory, "serve": serving, "train": training}
    results: dict[str, Any] = {}
    for part in arguments.parts:
        results[part] = measure[part](arguments)
        print(f"{part}: {json.dumps(results[part])}", file=sys.stderr, flush=True)
    print(json.dumps({"reader": arguments.reader.name, "rounds": arguments.rounds, **results}))


def seconds_of(ways: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each way, taken in turns, and what each returned last."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    said: dict[str, Any] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            said[name] = way()
            taken[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(times), 4) for name, times in taken.items()}, said


def as_baseline(reader: Any) -> Any:
    """The reader with the choices that the baseline has: the lowest null of all windows decides, questions are not cut."""
    return replace(reader, settings=replace(reader.settings, combine="lowest-null", max_question_tokens=384), threshold=None)


def decoding(arguments: argparse.Namespace) -> dict[str, Any]:
    """Logits of N windows (one a question), Python loops against arrays. `search`: the 20 best spans of each window, as tokens with scores
    (the loop gives characters); `spans`: windows merged, as characters; `answers`: with 20 texts and probabilities each."""
    import torch

    from campana.reading.answer import predictions
    from campana.reading.reader import Reader, spans_of

    told: dict[str, Any] = {}
    reader = as_baseline(Reader.load(arguments.reader))
    model, tokenizer = loaded(arguments.reader)
    sizes = [size for size in (100, 300, 1000) if size <= 2 * max(arguments.questions)]
    examples = short(work.half("A"), sizes[-1])
    features = baseline.features_of(tokenizer, examples)
    logits = baseline.logits_of(model, features)
    stand_in = replace(reader, forward=known(*(torch.from_numpy(side) for side in logits)))
    for size in sizes:
        some, rows = examples[:size], features[:size]
        group, batches = ready(reader, some)
        ways: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "search": (
                lambda n=size, f=rows: baseline.pieces_of(n, f, logits),
                lambda g=group, b=batches: [spans_of(batch, stand_in.forward, g, stand_in.settings) for batch in b],
            ),
            "spans": (
                lambda n=size, f=rows: baseline.pieces_of(n, f, logits),
                lambda g=group, b=batches: [list(item.spans()) for item in found(stand_in, g, b)],
            ),
            "answers": (
                lambda e=some, f=rows: baseline.answers_of(e, f, logits),
                lambda g=group, b=batches: predictions([stand_in.say(item, num_candidates=20) for item in found(stand_in, g, b)]),
            ),
        }
        measured: dict[str, Any] = {}
        for name, (loops, arrays) in ways.items():
            took, said = seconds_of({"baseline": loops, "campana": arrays}, arguments.rounds)
            measured[name] = {**took, "times": round(took["baseline"] / took["campana"], 1)}
        same = sum(said["baseline"][name] == said["campana"][name] for name in said["baseline"])
        told[str(size)] = {**measured, "same_answers": same}
    return told


def known(start: Any, end: Any) -> Any:
    """A reader's forward function whose logits are there already, for batches of neighbouring windows."""

    def forward(batch: Any) -> Any:
        rows, length = slice(int(batch.windows[0]), int(batch.windows[-1]) + 1), batch.input_ids.shape[1]
        return start[rows, :length], end[rows, :length]

    return forward


def found(reader: Any, group: Any, batches: list[Any]) -> Any:
    """What `Reader` does after its model, on batches that were made before."""
    rows = iter(batches)
    object.__setattr__(group, "batches", lambda _: (batch.windows for batch in batches))
    object.__setattr__(group, "collate", lambda _: next(rows))
    return reader._find_in(group)


def short(examples: Any, number: int) -> list[Any]:
    """Questions of passages that surely fit one window."""
    return [example for example in examples if len(example.passage) < 900][:number]


def ready(reader: Any, examples: list[Any]) -> tuple[Any, list[Any]]:
    """Windows and batches, before any logits."""
    from campana.reading.windows import group_of

    group = group_of(examples, reader.layout, reader.settings)[0]
    assert len(group.of_example) == len(examples)
    return group, [group.collate(np.arange(first, min(first + 64, len(examples)))) for first in range(0, len(examples), 64)]


def loaded(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer for the baseline."""
    from campana.reading.span_model import load_span_model

    model, tokenizer, _ = load_span_model(folder)
    return model, tokenizer


def evaluation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Half A from examples to answers."""
    from campana.reading.answer import predictions
    from campana.reading.reader import Reader
    from campana.reading.scoring import score_predictions, summary

    questions = work.half("A")
    model, tokenizer = loaded(arguments.reader)
    exact, rounded = Reader.load(arguments.reader), Reader.load(arguments.reader, "bf16")
    told: dict[str, Any] = {}
    for number in arguments.questions:
        examples = questions if number >= len(questions) else questions[:: len(questions) // number][:number]
        ways = {
            "baseline": lambda e=examples: baseline.evaluate(model, tokenizer, e),
            "campana": lambda e=examples: predictions(list(as_baseline(exact).answer(e))),
            "campana bf16": lambda e=examples: predictions(list(as_baseline(rounded).answer(e))),
        }
        took, said = seconds_of(ways, arguments.rounds if number < len(questions) else 1)
        scores = {name: summary(score_predictions(examples, answers, "squad")[0]) for name, answers in said.items()}
        told[str(len(examples))] = {
            **took,
            "times": round(took["baseline"] / took["campana"], 2),
            "times bf16": round(took["baseline"] / took["campana bf16"], 2),
            "f1": {name: round(score.f1 or 0, 3) for name, score in scores.items()},
            "has_answer_f1": {name: round(score.has_answer_f1 or 0, 3) for name, score in scores.items()},
            "differences": differences(exact, examples, said["baseline"], said["campana"]),
            "other_answers_bf16": sum(said["campana"][name] != said["campana bf16"][name] for name in said["campana"]),
        }
    return told


def differences(reader: Any, examples: Any, theirs: dict[str, str], ours: dict[str, str]) -> dict[str, int]:
    """Answers that differ, counted by reason."""
    other = [example for example in examples if theirs[example.id] != ours[example.id]]
    reasons: Counter[str] = Counter()
    for found in as_baseline(reader).find(other):
        mine, yours = ours[found.example.id], theirs[found.example.id]
        if found.num_windows > 1:
            reasons["several windows: each span has one window here, the best of all there"] += 1
        elif mine.strip() == yours.strip():
            reasons["white space or a character cut in two at an end"] += 1
        elif len(found.margins) > 1 and abs(found.margins[0] - found.margins[1]) < 1e-5:
            reasons["a tie"] += 1
        elif abs(found.margin) < 1e-5:
            reasons["a tie with no answer"] += 1
        else:
            reasons["the best span is not among the 20 best starts and ends"] += 1
    return {"all": len(other), **reasons}


def engines(arguments: argparse.Namespace) -> dict[str, Any]:
    """Questions a second of the four engines, on 600 questions, and how far their F1 is from fp32's."""
    from campana.reading.answer import predictions
    from campana.reading.export import export
    from campana.reading.reader import Reader
    from campana.reading.scoring import score_predictions, summary

    questions = work.half("A")
    examples = questions[:: len(questions) // 600][:600]
    with tempfile.TemporaryDirectory() as folder:
        # The light reader has seen part of half B and does not say so: good enough to tell what rounding costs.
        held_out = work.half("B")[::20]
        export(arguments.reader, Path(folder) / "onnx", held_out[:40])
        narrow = export(arguments.reader, Path(folder) / "int8", held_out, int8=True)
        readers = {
            "torch fp32": Reader.load(arguments.reader),
            "torch bf16": Reader.load(arguments.reader, "bf16"),
            "onnx fp32": Reader.load(Path(folder) / "onnx"),
            "onnx int8": Reader.load(Path(folder) / "int8"),
        }
        took, said = seconds_of({n: lambda r=r: predictions(list(r.answer(examples))) for n, r in readers.items()}, arguments.rounds)
    told: dict[str, Any] = {}
    for name, answers in said.items():
        score = summary(score_predictions(examples, answers, "squad")[0])
        same = sum(answers[one] == said["torch fp32"][one] for one in answers)
        told[name] = {"questions_per_second": round(len(examples) / took[name], 1), "f1": round(score.f1 or 0, 2), "same_answers": same}
    return {**told, "int8 loss": narrow.loss.as_dict() if narrow.loss else None}


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak memory above that of a short passage, by the passage's length."""
    told: dict[str, Any] = {}
    for characters in (5000, 50_000, 500_000):
        command = [sys.executable, __file__, "--reader", str(arguments.reader), "--characters", str(characters)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        told[str(characters)] = json.loads(output.splitlines()[-1])
    return told


def read_long(folder: Path, characters: int) -> dict[str, Any]:
    """In a process of its own: one question on one passage."""
    from campana.reading.examples import Example
    from campana.reading.reader import Reader

    reader = Reader.load(folder)
    text = " ".join(dict.fromkeys(example.passage for example in work.half("A")))
    warm = [Example(str(number), "Where?", text[number * 3000 : number * 3000 + 3000]) for number in range(8)]
    list(reader.answer(warm))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    passage = (text * (characters // len(text) + 1))[:characters]
    start = time.perf_counter()
    (answer,) = reader.answer([Example("long", "When did the Normans come?", passage)])
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "windows": answer.num_windows,
        "seconds": round(seconds, 2),
        "peak_mb": round(after / 1024),
        "more_mb": round((after - before) / 1024, 1),
    }


def serving(arguments: argparse.Namespace) -> dict[str, Any]:
    """Requests a second and latency, by the number of callers; callers and server share the machine."""
    questions = work.half("A")
    chosen = questions[:: len(questions) // 500]
    bodies = [json.dumps({"question": example.question, "passage": example.passage}).encode() for example in chosen]
    told: dict[str, Any] = {}
    for precision in ("fp32", "bf16"):
        start = "from campana.cli import main; main()"
        command = [sys.executable, "-c", start, "read", "serve", "-m", str(arguments.reader), "--port", "0", "--precision", precision]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            port = int(re.search(r":(\d+) ", server.stderr.readline()).group(1))  # type: ignore[union-attr]
            asyncio.run(work.call(port, bodies, 4, 2.0))
            told[precision] = [asyncio.run(work.call(port, bodies, callers, 6.0)) for callers in (1, 8, 32)]
            server.terminate()
    return told


def training(arguments: argparse.Namespace) -> dict[str, Any]:
    """Questions a second while training on the same questions, by sizes: padded batches of 16 in fp32, and our loop in fp32 and bf16.

    Answers of both are targets of the same kind; ours has the same tokens a step, without padding. Features and windows are told apart.
    """
    told: dict[str, Any] = {}
    for number in (256, 1024):
        examples = work.half("B")[:number]
        rates: dict[str, list[float]] = {}
        for _ in range(arguments.rounds):
            model, tokenizer = loaded(arguments.reader)
            start = time.perf_counter()
            features = baseline.features_of(tokenizer, examples, answers=True)
            ready_at = time.perf_counter()
            steps = len(features) // baseline.TRAINING_BATCH
            baseline.train(model, features, steps)
            share = steps * baseline.TRAINING_BATCH / len(features)
            rates.setdefault("baseline", []).append(share * number / (time.perf_counter() - ready_at))
            rates.setdefault("baseline set-up seconds", []).append(ready_at - start)
            for precision in ("fp32", "bf16"):
                meter = work.train(arguments.reader, examples, precision)
                rates.setdefault(f"campana {precision}", []).append(number / meter["seconds"]["train"])
                rates.setdefault(f"campana {precision} set-up seconds", []).append(meter["seconds"]["windows"])
        medians = {name: round(statistics.median(values), 2) for name, values in rates.items()}
        times = {f"times {name}": round(medians[f"campana {name}"] / medians["baseline"], 2) for name in ("fp32", "bf16")}
        told[str(number)] = {**medians, **times}
    return told


if __name__ == "__main__":
    main()
