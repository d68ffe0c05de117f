"""Answering a suite: journalled, killed and gone on with, the file is the same to the byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import PrivateAttr

from campana.errors import DataError
from campana.generation.answer import answer_suite
from campana.generation.engine import Completion, Engine, Greedy, Sample
from campana.generation.engines.packed import Packed
from campana.generation.engines.reference import Transformers
from campana.records import Answer, read_jsonl


class Killed(Exception):  # noqa: N818  # what happens to a process, not a mistake
    """The end of a process, in a test."""


class Mortal(Engine):
    """An engine that dies after some completions, whatever the number of calls."""

    inner: Engine
    lives: int
    _lived: list[str] = PrivateAttr(default_factory=list)

    @property
    def group_size(self) -> int | None:
        return self.inner.group_size

    def complete(self, *arguments: Any) -> Iterator[Completion]:
        for completion in self.inner.complete(*arguments):
            if len(self._lived) == self.lives:
                raise Killed
            self._lived.append(completion.id)
            yield completion


def suite(path: Path, turns: int = 2, words: str = "word " * 3) -> Path:
    """Items of uneven lengths in two categories; every third has two user turns, one a system turn."""
    rows: list[dict[str, Any]] = []
    for number in range(11):
        asked = [{"role": "user", "content": f"question {number} " + words * (number % 4)}]
        if number % 3 == 0 and turns > 1:
            asked.append({"role": "user", "content": "and the other?"})
        if number == 4:
            asked.insert(0, {"role": "system", "content": "and so"})
        rows.append({"id": f"q{number}", "category": f"c{number % 2}", "messages": asked})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def answer(tmp_path: Path, model_dir: Path) -> Any:
    """Answer the suite into a folder of its name; returns the meter."""

    def run(name: str = "out", **changes: Any) -> Any:
        told: list[float] = changes.pop("told", [])
        settings: dict[str, Any] = {
            "engine": Packed(),
            "model_dir": model_dir,
            "tuned_dir": None,
            "suite_path": suite(tmp_path / "suite.jsonl"),
            "suite_format": "campana",
            "template_name": "model",
            "sampling": Greedy(),
            "max_new_tokens": 10,
            "max_items": None,
            "precision": "fp32",
            "journal_every": 1,
            "out_dir": tmp_path / name,
            "scratch_dir": tmp_path / f"{name}-scratch",
            "progress": lambda done, total, unit, **figures: told.append(done / total),
        }
        settings["out_dir"].mkdir(exist_ok=True)
        settings["scratch_dir"].mkdir(exist_ok=True)
        return answer_suite(**{**settings, **changes})

    return run


def read(tmp_path: Path, name: str = "out") -> list[Answer]:
    return list(read_jsonl(tmp_path / name / "answers.jsonl", Answer))


def test_answers_are_in_the_order_of_the_suite_and_counted(answer: Any, tmp_path: Path) -> None:
    told: list[float] = []
    meter = answer(told=told)
    answers = read(tmp_path)
    assert [one.item_id for one in answers] == [f"q{number}" for number in range(11)]
    assert [len(one.turns) for one in answers] == [2 if number % 3 == 0 else 1 for number in range(11)]
    assert meter["num_items"] == 11
    assert meter["prompt_tokens"] == sum(one.num_prompt_tokens for one in answers)
    assert meter["completion_tokens"] == sum(one.num_completion_tokens for one in answers)
    assert 0 < meter["truncated"] == sum(one.finish == "length" for one in answers) < 11, "the test needs both ends"
    assert meter["flops"] > 0
    assert meter["peak_memory_bytes"] > 1e7
    assert meter["tokens_per_second"] > 0
    assert set(meter["seconds"]) == {"load", "prefill", "decode"}
    assert told[-1] == 1.0
    json.dumps(meter, allow_nan=False)


@pytest.mark.parametrize("sampling", [Greedy(), Sample(seed=5, temperature=2.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("engine", [Packed(max_rows=3), Transformers(batch_size=4)], ids=["packed", "transformers"])
def test_a_run_that_is_killed_again_and_again_ends_the_same(answer: Any, tmp_path: Path, engine: Engine, sampling: Any) -> None:
    counted = ("num_items", "prompt_tokens", "completion_tokens", "tokens", "truncated", "flops")
    whole = answer("whole", engine=engine, sampling=sampling)
    deaths, lives, done = 0, 1, 0
    while True:
        try:
            meter = answer("torn", engine=Mortal(inner=engine, lives=lives), sampling=sampling)
            break
        except Killed:
            deaths += 1
            lives += 1
            journal = tmp_path / "torn-scratch" / "turns.jsonl"
            assert not (tmp_path / "torn" / "answers.jsonl").exists()
            journal.write_bytes(journal.read_bytes() + b'{"schema": "campana.turn/1", "item_id": "q')  # a write that was cut
            num_rows = journal.read_bytes().count(b"\n")
            assert num_rows > done or engine.group_size, "each life moves on"
            done = num_rows
    assert deaths >= 3
    assert (tmp_path / "torn" / "answers.jsonl").read_bytes() == (tmp_path / "whole" / "answers.jsonl").read_bytes()
    assert {name: meter[name] for name in counted} == {name: whole[name] for name in counted}


def test_what_is_journalled_is_not_asked_again(answer: Any, tmp_path: Path) -> None:
    answer()
    first = (tmp_path / "out" / "answers.jsonl").read_bytes()
    (tmp_path / "out" / "answers.jsonl").unlink()
    meter = answer(engine=Mortal(inner=Packed(), lives=0))
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == first
    assert meter["tokens_per_second"] is None
    assert meter["seconds"] == {"load": 0.0, "prefill": 0.0, "decode": 0.0}


def test_the_second_turn_is_asked_after_the_first_answer(answer: Any, tmp_path: Path, model_dir: Path) -> None:
    from campana.data.templates import load_template
    from campana.models.load import load_tokenizer

    answer()
    both = read(tmp_path)[3]
    template = load_template("model", load_tokenizer(model_dir))
    question = {"role": "user", "content": "question 3 " + "word " * 9}
    second = [question, {"role": "assistant", "content": both.turns[0]}, {"role": "user", "content": "and the other?"}]
    assert both.num_prompt_tokens == len(template.prompt([question])) + len(template.prompt(second))


def test_answers_have_no_control_tokens_and_keep_their_white_space(tmp_path: Path, answer: Any, model_dir: Path) -> None:
    from campana.models.load import load_tokenizer

    tokenizer = load_tokenizer(model_dir)

    class Fixed(Engine):
        def complete(
            self,
            model: Any,
            requests: Any,
            sampling: Any,
            max_new: Any,
            stops: Any,
            on_tokens: Any,
            phases: Any = None,
            compiled: Any = None,
        ) -> Any:
            assert stops >= {2, 10, 29}, "the template's end token and those of the generation config"
            for request in requests:
                yield Completion(request.id, tuple(tokenizer.encode("<|im_start|>  a ,  b !\n\n")), "stop")

    answer(engine=Fixed())
    assert {turn for one in read(tmp_path) for turn in one.turns} == {"  a ,  b !\n\n"}


def test_fewer_items_have_the_same_answers(answer: Any, tmp_path: Path) -> None:
    answer("all")
    assert answer("some", max_items=4)["num_items"] == 4
    known = {one.item_id: one for one in read(tmp_path, "all")}
    assert [one == known[one.item_id] for one in read(tmp_path, "some")] == [True] * 4


def test_a_conversation_beyond_the_positions_is_an_error_that_names_it(answer: Any, tmp_path: Path) -> None:
    long = suite(tmp_path / "long.jsonl", words="word " * 40)
    with pytest.raises(DataError, match="256 positions") as caught:
        answer(suite_path=long)
    assert caught.value.where == "item 'q3', turn 1"
    assert "max_new_tokens" in str(caught.value.hint)
