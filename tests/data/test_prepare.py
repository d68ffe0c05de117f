from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from campana.data.format import Format
from campana.data.formats.alpaca import Alpaca
from campana.data.formats.messages import Messages
from campana.data.prepare import prepare
from campana.data.prepared import PreparedRows
from campana.data.templates import load_template
from campana.errors import DataError
from campana.records import Message
from campana.stages.prepare import Portion

Rows = list[dict[str, Any]]


def rows(count: int, prefix: str = "") -> Rows:
    return [
        {"instruction": f"{prefix}add {number} and {number + 1}", "input": "", "output": f"it is {2 * number + 1}"}
        for number in range(count)
    ]


class Prepared:
    """What one call wrote."""

    def __init__(self, folder: Path, meter: Mapping[str, Any]) -> None:
        self.meter = meter
        self.train = PreparedRows.open(folder / "train.arrow")
        self.validation = PreparedRows.open(folder / "validation.arrow")
        self.report = json.loads((folder / "data_report.json").read_text(encoding="utf-8"))
        self.files = sorted(path.name for path in folder.iterdir())

    @staticmethod
    def contents(prepared: PreparedRows) -> set[tuple[int, ...]]:
        return {tuple(prepared.row(index)[0].tolist()) for index in range(len(prepared))}


Prepare = Callable[..., Prepared]


@pytest.fixture
def run(model_dir: Path, tmp_path: Path, write_rows: Callable[..., Path]) -> Prepare:
    calls = iter(range(100))

    def call(
        data: Mapping[str, Rows | Path],
        amounts: Mapping[str, int | float | None] | None = None,
        formats: Mapping[str, Format] | None = None,
        **changes: Any,
    ) -> Prepared:
        number = next(calls)
        out_dir = tmp_path / f"out{number}"
        out_dir.mkdir()
        portions = {
            name: Portion(
                format=(formats or {}).get(name, Alpaca()),
                count=amount if isinstance(amount := (amounts or {}).get(name), int) else None,
                fraction=amount if isinstance(amount, float) else None,
            )
            for name in data
        }
        paths = {name: found if isinstance(found, Path) else write_rows(f"{number}-{name}.jsonl", found) for name, found in data.items()}
        options: dict[str, Any] = {"template_name": "model", "max_length": 256, "num_validation": 5, "subset_seed": 0, **changes}
        meter = prepare(
            model_dir=model_dir, data_paths=paths, portions=portions, out_dir=out_dir, progress=lambda *_, **__: None, **options
        )
        return Prepared(out_dir, meter)

    return call


def test_rows_masks_and_report_agree(run: Prepare, tokenizer: Any) -> None:
    done = run({"a": rows(40)}, {"a": 20})
    assert done.files == ["data_report.json", "train.arrow", "validation.arrow"]
    assert (len(done.train), len(done.validation)) == (20, 5)
    template = load_template("model", tokenizer)
    for index in range(20):
        ids, supervised = done.train.row(index)
        number = int(done.train.source(index).removeprefix("a:")) - 1
        row = rows(40)[number]
        expected = template.encode([Message("user", row["instruction"]), Message("assistant", row["output"])])
        assert ids.tolist() == expected.ids
        assert supervised.tolist() == expected.supervised
        assert (done.train.lengths[index], done.train.num_supervised[index]) == (len(ids), supervised.sum())
        assert (ids.dtype, supervised.dtype) == (np.int32, np.bool_)
    report = done.report
    assert report["schema"] == "campana.data_report/1"
    entry = report["data_sets"]["a"]
    assert (entry["read"], entry["kept"], entry["used"], entry["validation"], entry["dropped"]) == (40, 40, 20, 5, {})
    assert entry["tokens"] == {"total": done.train.lengths.sum(), "supervised": done.train.num_supervised.sum()}
    assert sum(entry["lengths"]["histogram"]["counts"]) == 20
    assert entry["lengths"]["max"] == done.train.lengths.max()
    assert entry["lengths"]["median"] == np.sort(done.train.lengths)[9]
    assert entry["language"]["guess"] == "latin"
    assert report["proofs"]["prompts_equal_generation"] >= 25
    assert report["proofs"]["end_token_is_pad_token"] is True
    assert done.meter == report["totals"]
    assert done.meter["train_tokens"] == done.train.lengths.sum()


def test_subsets_are_nested_whatever_the_order_of_the_file(run: Prepare) -> None:
    data = rows(200)
    small, large = run({"a": data}, {"a": 20}), run({"a": data}, {"a": 80})
    turned, mixed = run({"a": data[::-1]}, {"a": 20}), run({"a": data, "b": rows(100, "please ")}, {"a": 20, "b": 10}, num_validation=10)
    first = Prepared.contents(small.train)
    assert first < Prepared.contents(large.train)
    assert first == Prepared.contents(turned.train)
    assert first < Prepared.contents(mixed.train)
    assert Prepared.contents(small.validation) == Prepared.contents(large.validation) == Prepared.contents(turned.validation)
    assert first != Prepared.contents(run({"a": data}, {"a": 20}, subset_seed=1).train)


def test_no_size_trains_on_a_validation_row(run: Prepare) -> None:
    done = run({"a": rows(60)})
    assert (len(done.train), len(done.validation)) == (55, 5)
    assert not Prepared.contents(done.train) & Prepared.contents(done.validation)
    tiny = run({"a": rows(60)}, {"a": 3})
    assert Prepared.contents(tiny.validation) == Prepared.contents(done.validation)


def test_fractions_are_of_the_readable_rows(run: Prepare) -> None:
    half = run({"a": rows(60)}, {"a": 0.5})
    assert len(half.train) == 30
    assert Prepared.contents(half.train) < Prepared.contents(run({"a": rows(60)}, {"a": 1.0}).train)
    assert len(run({"a": rows(60)}, {"a": 1.0}).train) == 55


def test_every_drop_has_its_reason_and_an_example(run: Prepare, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    good = "".join(json.dumps(row) + "\n" for row in rows(20))
    bad = [
        json.dumps({"instruction": "no answer", "output": "  "}),
        json.dumps({"instruction": "half a pair", "output": "\ud83d"}),
        json.dumps({"half a name \ud83d": "x"}),
        json.dumps(rows(20)[3]),
        json.dumps({"instruction": "long", "output": "word " * 400}),
        json.dumps({"question": "other names"}),
        "{not json}",
    ]
    path.write_bytes((good + "\n".join(bad) + "\n").encode() + b'{"instruction": "\xff", "output": "x"}\n{"instruction": "cut')
    done = run({"a": path})
    dropped = done.report["data_sets"]["a"]["dropped"]
    assert {reason: value["count"] for reason, value in dropped.items()} == {
        "empty answer": 1,
        "not UTF-8": 2,
        "duplicate": 1,
        "too long": 1,
        "missing field": 2,
        "not JSON": 1,
        "truncated JSON": 1,
    }
    assert dropped["empty answer"]["example"]["where"] == "a:21"
    assert "no answer" in dropped["empty answer"]["example"]["excerpt"]
    assert dropped["duplicate"]["example"]["detail"] == "equal to a:row 4"
    entry = done.report["data_sets"]["a"]
    assert entry["read"] == entry["kept"] + sum(value["count"] for value in dropped.values()) == 29


def test_duplicates_across_data_sets_stay_in_the_first_by_name(run: Prepare) -> None:
    both = run({"b": rows(30), "a": rows(10)}, num_validation=0)
    assert (both.report["data_sets"]["a"]["used"], both.report["data_sets"]["b"]["used"]) == (10, 20)
    assert both.report["data_sets"]["b"]["dropped"]["duplicate"]["count"] == 10
    again = run({"a": rows(10), "b": rows(30)}, num_validation=0)
    assert again.report == both.report


def test_a_long_conversation_loses_its_last_turns_whole(run: Prepare, tokenizer: Any) -> None:
    turn = [{"role": "user", "content": "tell me more"}, {"role": "assistant", "content": "word " * 20}]
    done = run(
        {"a": [{"messages": turn * 8}, {"messages": turn}, {"messages": [turn[0], {"role": "assistant", "content": "x " * 500}]}]},
        formats={"a": Messages()},
        num_validation=0,
    )
    entry = done.report["data_sets"]["a"]
    assert (entry["used"], entry["shortened"], entry["dropped"]["too long"]["count"]) == (2, 1, 1)
    index = int(np.argmax(done.train.lengths))
    ids, supervised = done.train.row(index)
    rounds = int((ids == tokenizer.eos_token_id)[supervised].sum())
    assert 1 < rounds < 8
    template = load_template("model", tokenizer)
    messages = [Message(message["role"], message["content"]) for message in turn]  # type: ignore[arg-type]  # roles are literals above
    assert ids.tolist() == template.encode(messages * rounds).ids
    assert len(template.encode(messages * (rounds + 1)).ids) > 256


def test_no_row_ends_inside_its_answer(run: Prepare, tokenizer: Any) -> None:
    # The row whose answer is truncated away and which is learned all the same: here it is counted as too long.
    data = [{"instruction": f"say {number}", "output": "word " * number} for number in range(1, 120)]
    done = run({"a": data}, max_length=64, num_validation=0)
    assert done.report["data_sets"]["a"]["dropped"]["too long"]["count"] > 0
    for index in range(len(done.train)):
        ids, supervised = done.train.row(index)
        assert len(ids) <= 64
        assert ids[-1] == tokenizer.eos_token_id
        assert supervised[-1]


def test_too_long_rows_are_replaced_by_the_next_in_order(run: Prepare) -> None:
    data = rows(100)
    for row in data[::2]:
        row["output"] = row["output"] + " word" * 300
    done = run({"a": data}, {"a": 40})
    assert len(done.train) == 40
    with pytest.raises(DataError, match="46 training rows were asked for, but the data set has 45 usable ones beside 5 held out") as caught:
        run({"a": data}, {"a": 46})
    assert "too long 50" in (caught.value.hint or "")
    assert (caught.value.hint or "").startswith("raise tune: {max_length: ...}")


def test_asking_for_too_much_gives_the_number_there_is(run: Prepare) -> None:
    with pytest.raises(DataError, match=r"41 training rows were asked for, but the data set has 35 usable ones.*of 40 read"):
        run({"a": rows(40)}, {"a": 41})
    with pytest.raises(DataError, match=r"5 validation rows and at least one of training were asked for, but .* 5 usable ones \(of 5 read"):
        run({"a": rows(5)})
    with pytest.raises(DataError, match="has 0 usable ones") as caught:
        run({"a": [{"x": "y"}]}, num_validation=0)
    assert "missing field 1" in (caught.value.hint or "")


def test_the_proofs_stop_the_run(run: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    from campana.data import templates

    with monkeypatch.context() as patch:
        prompt = templates.ChatTemplate.prompt
        patch.setattr(templates.ChatTemplate, "prompt", lambda self, messages: [*prompt(self, messages), 7])
        with pytest.raises(DataError, match="prompt tokens in training are not those in generation"):
            run({"a": rows(10)})
    encoded = templates._encoded

    def without(part: str) -> Callable[..., templates.Encoded]:
        def change(*given: Any) -> templates.Encoded:
            row = encoded(*given)
            if part == "mask":
                return templates.Encoded(row.ids, [False] * len(row.ids), row.turns)
            start, end = row.turns[-1]
            return templates.Encoded(row.ids[:-1], row.supervised[:-1], ((start, end - 1),))

        return change

    for part, message in (("mask", "without a token to learn"), ("end", "its stop token included")):
        with monkeypatch.context() as patch:
            patch.setattr(templates, "_encoded", without(part))
            with pytest.raises(DataError, match=message):
                run({"a": rows(10)})


def test_a_missing_tokenizer_and_a_file_of_another_kind(run: Prepare, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="no tokenizer can be read"):
        prepare(
            model_dir=empty,
            data_paths={"a": tmp_path},
            portions={"a": Portion(format=Alpaca())},
            template_name="model",
            max_length=64,
            num_validation=0,
            subset_seed=0,
            out_dir=out,
            progress=lambda *_, **__: None,
        )
    (tmp_path / "x.arrow").write_bytes(b"ARROW1 no more")
    with pytest.raises(DataError, match="not a file of prepared rows"):
        PreparedRows.open(tmp_path / "x.arrow")


def test_rows_are_found_in_any_batch_and_none_outside(run: Prepare) -> None:
    done = run({"a": rows(1300)}, num_validation=1)
    assert len(done.train) == 1299
    assert len({done.train.source(index) for index in range(1299)}) == 1299
    assert all(len(done.train.row(index)[0]) == done.train.lengths[index] for index in range(0, 1299, 97))
    for outside in (-1, 1299):
        with pytest.raises(IndexError):
            done.train.row(outside)
    empty = run({"a": rows(3)}, num_validation=0).validation
    assert (len(empty), empty.lengths.tolist()) == (0, [])


def test_plain_text_is_learned_with_a_template_without_roles_and_refused_by_one_that_needs_a_question(run: Prepare) -> None:
    from campana.data.formats.text import Text

    texts = [{"text": f"once upon a time there were {number} rows"} for number in range(8)]
    done = run({"a": texts}, formats={"a": Text()}, template_name="plain", num_validation=0)
    assert len(done.train) == 8
    assert (done.train.num_supervised == done.train.lengths - 1).all()
    with pytest.raises(DataError, match="0 usable ones") as caught:
        run({"a": texts}, formats={"a": Text()}, num_validation=0)
    assert "refused by the template 8" in (caught.value.hint or "")


def test_the_hash_order_is_pinned_for_ever(write_rows: Callable[..., Path]) -> None:
    from campana.data.survey import digest, survey

    conversation = Alpaca().read({"instruction": "你好", "output": "hi"}, "x:1")
    assert digest(conversation).hex() == "44749171f505b7b2c80c769c30b9ac9a"
    found = survey({"a": write_rows("a.jsonl", rows(8))}, {"a": Alpaca()}, seed=3, on_rows=lambda *_: None)
    assert found["a"].ordinals.tolist() == [1, 0, 5, 4, 6, 7, 3, 2]
