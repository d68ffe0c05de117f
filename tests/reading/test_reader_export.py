"""Exported readers: the same answers by the same code, proved before they are written; a graph that computes something else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_readers

from campana.errors import DataError, ModelError
from campana.reading.examples import Example, Span
from campana.reading.export import export
from campana.reading.export_parity import awkward_examples, compare
from campana.reading.reader import Reader, save_reader
from campana.reading.span_model import load_span_model

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PASSAGE = "Anna went to Rome in 1998 , Ben to Paris in 2001 ."


def labelled(number: int) -> list[Example]:
    rows = []
    for index in range(number):
        text, start = ("Rome", 13) if index % 2 else ("Paris", 35)
        spans = (Span(start, start + len(text)),)
        answerable = index % 3 > 0
        rows.append(Example(f"q{index}", f"where {index} ?", PASSAGE, "Trips", answerable, (text,) if answerable else (), spans))
    return rows


def same(first: Reader, second: Reader, examples: list[Example]) -> None:
    for a, b in zip(first.find(examples), second.find(examples), strict=True):
        assert (a.starts[:1].tolist(), a.ends[:1].tolist(), a.num_windows) == (b.starts[:1].tolist(), b.ends[:1].tolist(), b.num_windows)
        np.testing.assert_allclose(a.margins, b.margins, atol=1e-4)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, reader_folder: Path) -> Path:
    out = tmp_path_factory.mktemp("exported") / "onnx"
    export(reader_folder, out, labelled(6))
    return out


def test_an_exported_reader_reads_as_the_model_does(exported: Path, reader_folder: Path) -> None:
    ours, theirs = Reader.load(reader_folder), Reader.load(exported)
    assert theirs.settings == ours.settings
    same(ours, theirs, [*awkward_examples(ours), *labelled(20)])
    facts = json.loads((exported / "export.json").read_text())
    assert facts["parity"]["num_other_spans"] == 0
    assert 0 < facts["parity"]["largest_difference"] < 1e-3
    assert not [path.name for path in exported.iterdir() if path.suffix in (".safetensors", ".new", ".bin")]


def test_threshold_and_calibration_go_along(tmp_path: Path, bert_reader: Any) -> None:
    from campana.reading.evaluate import fitted

    reader = fitted(bert_reader, labelled(40))
    save_reader(tmp_path / "reader", tiny_readers.tiny_bert(), tiny_readers.word_pieces(), reader)
    export(tmp_path / "reader", tmp_path / "onnx")
    loaded = Reader.load(tmp_path / "onnx")
    assert (loaded.threshold, loaded.calibration) == (reader.threshold, reader.calibration)
    answers = [next(one.answer(labelled(1))) for one in (reader, loaded)]
    assert answers[0].p_no_answer == pytest.approx(answers[1].p_no_answer, abs=1e-4)


def test_a_model_without_types_of_tokens(tmp_path: Path, roberta_reader: Any) -> None:
    save_reader(tmp_path / "reader", tiny_readers.tiny_roberta(), tiny_readers.byte_level(), roberta_reader)
    export(tmp_path / "reader", tmp_path / "onnx")
    loaded = Reader.load(tmp_path / "onnx")
    assert loaded.settings.max_length == 128  # 130 positions begin after the padding id
    same(roberta_reader, loaded, labelled(4))


@pytest.mark.parametrize("kind", ["Llama", "Gemma3Text", "GPT2"])
def test_a_language_model(tmp_path: Path, kind: str) -> None:
    folder, source = tmp_path / "model", tmp_path / "reader"
    tiny_readers.tiny_decoder(kind).save_pretrained(folder)
    tiny_readers.decoder_tokens().save_pretrained(folder)
    model, tokenizer, _ = load_span_model(folder)
    save_reader(source, model, tokenizer, Reader.of(model, tokenizer))
    export(source, tmp_path / "onnx", labelled(6))
    ours, theirs = Reader.load(source), Reader.load(tmp_path / "onnx")
    assert theirs.layout.null_index == ours.layout.null_index == -1
    same(ours, theirs, labelled(20))


def test_another_model_is_told_by_its_logits_and_spans(bert_reader: Any) -> None:
    other = Reader.of(tiny_readers.tiny_bert(seed=1), tiny_readers.word_pieces())
    parity = compare(bert_reader.forward, other.forward, labelled(6), bert_reader)
    assert parity.largest_difference > 0.1
    assert parity.num_other_spans > 0
    with pytest.raises(ModelError, match="does not compute what the model does"):
        parity.require()


def test_a_mask_that_is_lost_is_told(bert_reader: Any) -> None:
    def unmasked(batch: Any) -> Any:
        return bert_reader.forward(replace(batch, attention_mask=np.ones_like(batch.attention_mask)))

    parity = compare(bert_reader.forward, unmasked, list(awkward_examples(bert_reader)), bert_reader)
    assert parity.largest_difference > parity.bound


def test_types_of_tokens_that_are_lost_are_told(bert_reader: Any) -> None:
    def untyped(batch: Any) -> Any:
        return bert_reader.forward(replace(batch, token_type_ids=np.zeros_like(batch.token_type_ids)))

    assert compare(bert_reader.forward, untyped, labelled(2), bert_reader).largest_difference > 1e-3


def test_equal_engines_differ_by_nothing(bert_reader: Any) -> None:
    parity = compare(bert_reader.forward, bert_reader.forward, labelled(6), bert_reader)
    assert (parity.largest_difference, parity.num_equal_spans) == (0.0, parity.num_windows)


def test_a_failed_export_leaves_nothing(tmp_path: Path, reader_folder: Path) -> None:
    with pytest.raises(ModelError, match="does not compute what the model does"):
        export(reader_folder, tmp_path / "onnx", bound=0.0)
    assert list(tmp_path.iterdir()) == []


def test_int8_says_what_it_costs(tmp_path: Path, reader_folder: Path, exported: Path) -> None:
    made = export(reader_folder, tmp_path / "int8", labelled(30), int8=True)
    assert made.loss is not None
    stored = json.loads((tmp_path / "int8" / "export.json").read_text())
    assert stored["int8"] == json.loads(json.dumps(made.loss.as_dict()))
    assert stored["int8"]["documents"] == ["Trips"]
    assert stored["int8"]["before"]["scores"]["num_questions"] == 30
    assert (tmp_path / "int8" / "model.onnx").stat().st_size < (exported / "model.onnx").stat().st_size
    # What is measured is the file that is written.
    said = [[answer.answer for answer in Reader.load(folder).answer(labelled(30))] for folder in (exported, tmp_path / "int8")]
    assert sum(a == b for a, b in zip(*said, strict=True)) == made.loss.num_same_answers


def test_int8_is_not_measured_on_what_the_reader_has_seen(tmp_path: Path, bert_reader: Any) -> None:
    seen = replace(bert_reader, about={"documents": ["Trips"]})
    save_reader(tmp_path / "reader", tiny_readers.tiny_bert(), tiny_readers.word_pieces(), seen)
    with pytest.raises(DataError, match="trained on"):
        export(tmp_path / "reader", tmp_path / "onnx", labelled(6), int8=True)
    assert not (tmp_path / "onnx").exists()


def test_bf16_is_near(reader_folder: Path) -> None:
    exact, rounded = Reader.load(reader_folder), Reader.load(reader_folder, "bf16")
    parity = compare(exact.forward, rounded.forward, labelled(8), exact)
    assert 1e-5 < parity.largest_difference < 0.5


def test_what_is_refused(tmp_path: Path, exported: Path, reader_folder: Path, save_encoder: Any) -> None:
    import shutil

    with pytest.raises(ModelError, match="there already"):
        export(reader_folder, exported)
    with pytest.raises(ModelError, match="without a span head"):
        export(save_encoder(), tmp_path / "onnx")
    with pytest.raises(ModelError, match="bf16"):
        Reader.load(exported, "bf16")
    broken = shutil.copytree(exported, tmp_path / "broken")
    (broken / "model.onnx").write_bytes((exported / "model.onnx").read_bytes()[:1000])
    with pytest.raises(ModelError, match="onnxruntime cannot read"):
        Reader.load(broken)
    (broken / "export.json").unlink()
    with pytest.raises(ModelError, match=r"without its export\.json"):
        Reader.load(broken)


def test_the_command_exports_and_reads_on(tmp_path: Path, reader_folder: Path, campana: Any) -> None:
    from campana.reading.files import write_examples

    write_examples(tmp_path / "held-out.jsonl", labelled(12))
    code, _, told = campana("read", "export", "-m", reader_folder, "-o", tmp_path / "onnx", "--int8")
    assert code == 2
    assert "held-out" in told
    code, out, _ = campana("read", "export", tmp_path / "held-out.jsonl", "-m", reader_folder, "-o", tmp_path / "onnx", "--int8")
    assert code == 0
    assert "parity with torch" in out
    assert "same answer to" in out
    code, out, _ = campana("read", "answer", "-m", tmp_path / "onnx", "-q", "Where?", "-p", PASSAGE)
    assert code == 0
    answer = json.loads(out)
    assert answer["answer"] is None or PASSAGE[answer["start"] : answer["end"]] == answer["answer"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["electra", "distilbert", "deberta-v2"])
def test_other_encoders(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForQuestionAnswering

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "embedding_size": 32}
    names = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48}
    extra = {"deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}}.get(kind, {})
    chosen = names if kind == "distilbert" else sizes
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=200, max_position_embeddings=128, initializer_range=0.5, **chosen, **extra)
    model = AutoModelForQuestionAnswering.from_config(config).eval()
    tokenizer = tiny_readers.word_pieces()
    save_reader(tmp_path / "reader", model, tokenizer, Reader.of(model, tokenizer))
    made = export(tmp_path / "reader", tmp_path / "onnx", labelled(6))
    assert made.parity.num_windows > 50
    same(Reader.load(tmp_path / "reader"), Reader.load(tmp_path / "onnx"), labelled(6))
