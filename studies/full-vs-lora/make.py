"""Split alpaca's 52,002 English rows into training rows and a suite: `python studies/full-vs-lora/make.py ../shared/data`.

A row is a question of the suite if the hash of its instruction falls in the last 1/100: rows that share an instruction stay on
one side, so nothing that is trained on is asked. Long answers are left out of the suite (chrF against one long reference says
little). The data is not part of this project (CC BY-NC 4.0): it is read where it lies and written to `build/`, which git ignores.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NUM_ITEMS = 160
MOST_PROMPT_WORDS = 60
ANSWER_WORDS = range(3, 41)


def share(text: str) -> float:
    """A fixed number in [0, 1) for a text."""
    return int.from_bytes(hashlib.sha256(text.strip().lower().encode()).digest()[:8], "big") / 2**64


def rows(data_dir: Path) -> Iterator[dict[str, Any]]:
    """All rows of the two files."""
    for path in sorted((data_dir / "instr_en_alpaca52k").glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


def item(row: dict[str, Any]) -> dict[str, Any]:
    """A row as an item of the suite."""
    text = row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "")
    return {
        "id": f"alpaca-{row['idx']}",
        "category": "with input" if row["input"] else "instruction only",
        "language": "en",
        "messages": [{"role": "user", "content": text}],
        "reference": row["output"],
    }


def fits(row: dict[str, Any]) -> bool:
    """Whether a held-out row can be a question: short enough, and answered."""
    return len((row["instruction"] + " " + row["input"]).split()) <= MOST_PROMPT_WORDS and len(row["output"].split()) in ANSWER_WORDS


def write(path: Path, values: list[dict[str, Any]]) -> None:
    """Write JSONL, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    partial.replace(path)


def main(argv: list[str]) -> int:
    """Write build/train.jsonl and build/suite.jsonl beside this script."""
    data_dir = Path(argv[0] if argv else "../shared/data")
    if not (data_dir / "instr_en_alpaca52k").is_dir():
        sys.stderr.write(f"skipped: {data_dir}/instr_en_alpaca52k is not there\nhint: give the folder that holds instr_en_alpaca52k\n")
        return 1
    train: list[dict[str, Any]] = []
    held_out: dict[str, list[dict[str, Any]]] = {"with input": [], "instruction only": []}
    for row in rows(data_dir):
        if share(row["instruction"]) < 0.99:
            train.append({key: row[key] for key in ("instruction", "input", "output")})
        elif fits(row):
            held_out[item(row)["category"]].append(row)
    suite: list[dict[str, Any]] = []
    for found in held_out.values():
        found.sort(key=lambda row: share(row["instruction"] + row["input"]))
        suite += [item(row) for row in found[: NUM_ITEMS // 2]]
    build_dir = Path(__file__).parent / "build"
    build_dir.mkdir(exist_ok=True)
    write(build_dir / "train.jsonl", train)
    write(build_dir / "suite.jsonl", suite)
    sys.stderr.write(f"{len(train)} training rows and {len(suite)} items in {build_dir}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
