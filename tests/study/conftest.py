"""A small study on disk: a model folder, rows and questions, as a person would have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from campana.study import Study, load_study

STUDY = """\
question: Does LoRA reach full tuning?
primary: {measure: score, contrast: [method=lora, method=full]}
seeds: [0, 1]
models: {tiny: tiny-model}
data:
  rows: {path: rows.jsonl, format: alpaca}
suites:
  questions: {path: questions.jsonl}
base:
  model: tiny
  tune:
    data: {rows: 4}
    epochs: 1
    batch_tokens: 64
    validation: 2
  generate: {suite: questions, max_new_tokens: 8}
factors:
  method:
    full: {tune.method: full, tune.lr: 1e-5}
    lora: {tune.method: {kind: lora, rank: 4}, tune.lr: 1e-4}
  size:
    small: {tune.data: {rows: 4}}
    large: {tune.data: {rows: 8}}
baselines:
  untuned: {tune: null}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a study file and what it names."""
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    rows = [
        {"instruction": f"Say {word}.", "input": "", "output": word}
        for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    items = [
        {
            "id": f"q{n}",
            "category": "echo",
            "messages": [{"role": "user", "content": f"Say {n}."}],
            "checks": [{"kind": "number", "value": n}],
        }
        for n in range(4)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    (tmp_path / "tiny-model").mkdir()
    (tmp_path / "tiny-model" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return tmp_path


@pytest.fixture
def edited(folder: Path) -> Callable[..., Study]:
    """Load the study after replacing text in it: `edited("lr: 1e-5", "lr: 3e-5")`."""

    def load(*changes: str) -> Study:
        path = folder / "study.yaml"
        text = path.read_text(encoding="utf-8")
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text, f"the test's study has no {old!r}"
            text = text.replace(old, new, 1)
        path.write_text(text, encoding="utf-8")
        return load_study(path, cores=1)

    return load
