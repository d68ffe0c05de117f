"""How fast instruction data is made ready, and in how much memory: rows a second, tokens a second, peak resident memory by size.

    python benchmarks/data.py --model DIR [--data alpaca.jsonl] [--sizes 10000 100000 1000000] [--format jsonl] [--out figures.json]

The rows are made here. With --data each is an instruction and an answer of that file, paired anew and numbered, so that a million differ;
without, words are drawn from a short list, which is kinder to a tokenizer than real text. Every size runs in a process of its own, once
for all rows and once for 1,000 of them.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WORDS = """the of and to in is that for it as with on be this are by an at from or which have one you were all her would there their will
when who him been has more if no out do so can what up said about other into than its time only could new them man some these then two first
may any like now my such make over our even most me state after also made many did must before back see through way where get much go well
your know should down work year because come people just say each those take day good how long little give us same last water school number
write list explain reason answer sentence describe between language history energy computer country example important different""".split()  # noqa: SIM905  # it reads as text


def pairs(source: Path | None, generator: random.Random) -> Iterator[tuple[str, str]]:
    """Instructions and answers without end."""
    if source is None:
        while True:
            yield tuple(" ".join(generator.choices(WORDS, k=max(3, int(generator.lognormvariate(mu, 0.6))))) for mu in (2.5, 3.7))
    with source.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    while True:
        asked, answered = generator.choice(rows), generator.choice(rows)
        yield "\n".join(filter(None, (asked["instruction"], asked.get("input")))), answered["output"] or "none"


def make_rows(path: Path, count: int, source: Path | None) -> None:
    """Write `count` rows, all different."""
    found = pairs(source, random.Random(0))
    with path.open("w", encoding="utf-8") as file:
        for number, (instruction, output) in zip(range(count), found, strict=False):
            file.write(json.dumps({"instruction": f"{instruction} ({number})", "input": "", "output": output}, ensure_ascii=False) + "\n")


def to_parquet(path: Path) -> Path:
    """The same rows as Parquet."""
    import pyarrow.json
    import pyarrow.parquet as pq

    pq.write_table(pyarrow.json.read_json(path), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def to_array(path: Path) -> Path:
    """The same rows as one JSON array on one line."""
    array = path.with_name("array.json")
    with path.open(encoding="utf-8") as lines, array.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, line in enumerate(lines):
            file.write(("," if number else "") + line.rstrip())
        file.write("]")
    return array


def measure_one(model: Path, data: Path, count: int | None) -> dict[str, float]:
    """Prepare once, in this process."""
    from campana.data.formats.alpaca import Alpaca
    from campana.data.prepare import prepare
    from campana.stages.prepare import Portion

    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        meter = prepare(
            model_dir=model,
            data_paths={"a": data},
            portions={"a": Portion(format=Alpaca(), count=count)},
            template_name="model",
            max_length=1024,
            num_validation=64,
            subset_seed=0,
            out_dir=Path(folder),
            progress=lambda *_, **__: None,
        )
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "rows_read": meter["rows_read"],
        "rows_used": meter["train_rows"],
        "tokens": meter["train_tokens"],
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "rows_per_second": round(meter["rows_read"] / seconds),
        "tokens_per_second": round(meter["train_tokens"] / seconds),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    """Measure every size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder with a tokenizer and its chat template")
    parser.add_argument("--data", type=Path, help="alpaca rows (JSONL) to make rows from")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--format", choices=["jsonl", "parquet", "array"], default="jsonl")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("FILE", "COUNT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        file, count = options.one
        print(json.dumps(measure_one(options.model, Path(file), int(count) or None)))
        return
    figures: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            path = Path(folder) / "rows.jsonl"
            make_rows(path, size, options.data)
            path = {"jsonl": lambda path: path, "parquet": to_parquet, "array": to_array}[options.format](path)
            for count in (0, 1000):
                command = [sys.executable, __file__, "--model", str(options.model), "--one", str(path), str(count)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                figures.append(json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(figures[-1]), flush=True)
    if options.out:
        options.out.write_text(
            json.dumps({"schema": "campana.bench_data/1", "format": options.format, "figures": figures}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
