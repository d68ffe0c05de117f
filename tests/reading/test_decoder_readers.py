"""Language models as readers: rows whose last token stands for no answer, weights as they were, training in bf16 and fp32."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_readers
import torch
from torch import Tensor
from toy_questions import ignore, world

from campana.errors import ModelError
from campana.native.compiled import Compiled
from campana.reading.attention import NAMES, use_compiled
from campana.reading.cost import ReaderShape
from campana.reading.evaluate import evaluate
from campana.reading.layout import Layout
from campana.reading.reader import Reader
from campana.reading.settings import Settings
from campana.reading.span_model import load_span_model
from campana.reading.training.dropout import Noise, replace_dropout
from campana.reading.training.job import ReadTrainJob, train_reader
from campana.reading.training.network import Network
from campana.reading.training.objective import StepRows
from campana.reading.training.questions import TrainingTable
from campana.reading.windows import group_of

KINDS = ["Llama", "Qwen2", "Qwen3", "Gemma", "Gemma3Text", "Mistral", "Phi3", "Olmo2", "OPT", "GPT2"]


@pytest.fixture
def save_decoder(tmp_path: Path) -> Callable[..., Path]:
    """Write the folder of a tiny language model."""

    def save(kind: str = "Llama", **changes: Any) -> Path:
        folder = tmp_path / kind
        tiny_readers.tiny_decoder(kind, **changes).save_pretrained(folder)
        tiny_readers.decoder_tokens().save_pretrained(folder)
        return folder

    return save


def rows() -> tuple[Tensor, Tensor]:
    """Ids and mask of three rows."""
    return torch.arange(10, 10 + 3 * 30).view(3, 30), (torch.arange(30) < torch.tensor([[30], [17], [1]])).long()


def read(model: Any, tokens: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        return model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_the_language_model_and_survive_a_save(save_decoder: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    folder = save_decoder(kind)
    model, tokenizer, _ = load_span_model(folder)
    original = tiny_readers.tiny_decoder(kind).base_model
    assert all(torch.equal(a, b) for a, b in zip(original.parameters(), model.base_model.parameters(), strict=True))
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again, _, fresh = load_span_model(tmp_path / "saved")
    assert not fresh
    assert torch.equal(read(again, *rows()), read(model, *rows()))


@pytest.mark.parametrize("begins", [True, False])
def test_a_row_is_the_question_a_new_line_the_passage_and_an_end_for_no_answer(begins: bool) -> None:
    tokenizer = tiny_readers.decoder_tokens()
    if not begins:
        tokenizer.bos_token = None
    layout = Layout.of(tokenizer, decoder=True)
    examples, _ = world()
    short = replace(examples[1], passage=examples[1].passage.split(" in ")[0])
    group, _ = group_of([examples[0], short], layout, Settings(max_length=128))
    batch = group.collate(np.array([0, 1]))
    for index, example in enumerate(group.examples):
        row = batch.input_ids[index][batch.attention_mask[index] > 0]
        told = layout.tokenizer.decode(row.tolist(), skip_special_tokens=False)
        assert told == f"{'<s>' if begins else ''}{example.question}\n{example.passage}</s>"
        assert batch.null_at[index] == len(row) - 1
        assert not batch.can_end[index, batch.null_at[index]]


def test_the_model_decides_the_form_of_its_rows_and_not_the_tokenizer(save_decoder: Callable[..., Path]) -> None:
    folder = save_decoder("GPT2")
    tiny_readers.word_pieces().save_pretrained(folder)
    model, tokenizer, _ = load_span_model(folder)
    layout = Reader.of(model, tokenizer).layout
    assert (layout.null_index, layout.prefix, layout.suffix) == (-1, (tokenizer.cls_token_id,), (tokenizer.sep_token_id,))


def test_a_tokenizer_without_an_end_is_refused() -> None:
    tokenizer = tiny_readers.decoder_tokens()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="ends a text"):
        Layout.of(tokenizer, decoder=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_gets_dropout_that_follows_the_step(kind: str) -> None:
    model = tiny_readers.tiny_decoder(kind)
    noise = Noise(0)
    plain = read(model, *rows())
    assert replace_dropout(model, 0.5, noise) >= 4, "two in each of two layers"
    assert torch.equal(read(model.eval(), *rows()), plain)
    model.train()
    found = []
    for step in (1, 2, 1):
        noise.at(step)
        found.append(read(model, *rows()))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], plain)


def test_a_model_without_a_place_for_dropout_is_told(
    save_decoder: Callable[..., Path], job: Callable[..., ReadTrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("campana.reading.training.dropout.OUTPUTS", ())
    start = save_decoder()
    for dropout in (0.1, 0.0):
        made = job(str(dropout), start_dir=start, dropout=dropout, steps=2)
        train_reader(made, ignore)
        told = json.loads((made.out_dir / "tune.json").read_text())["warnings"]
        assert any("without dropout" in text for text in told) == (dropout > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_does_not_depend_on_what_is_read_beside_it(save_decoder: Callable[..., Path], kind: str) -> None:
    torch.manual_seed(0)
    model, tokenizer, _ = load_span_model(save_decoder(kind))
    torch.nn.init.normal_(model.qa_outputs.weight)
    reader = Reader.of(model, tokenizer, {"settings": Settings(max_length=40, overlap=8).as_dict()})
    examples, _ = world()
    asked = [examples[0], replace(examples[1], passage=examples[1].passage * 4), replace(examples[2], question="who ?")]
    together = list(reader.find(asked))
    alone = [found for example in asked for found in reader.find([example])]
    assert together[1].num_windows > 1
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.margins, other.margins, atol=1e-5)
        assert one.starts.tolist() == other.starts.tolist()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_decoder_learns_to_answer_and_to_abstain(
    save_decoder: Callable[..., Path], job: Callable[..., ReadTrainJob], precision: str
) -> None:
    told: dict[str, Any] = {"steps": 120, "plain_steps": 0, "dropout": 0.0, "learning_rate": 5e-3, "batch_tokens": 400}
    made = job(start_dir=save_decoder("Gemma3Text"), precision=precision, **told)
    train_reader(made, ignore)
    reader = Reader.load(made.out_dir / "model")
    scores = evaluate(reader, [replace(example, document="again") for example in made.examples]).results[0].scores
    assert min(scores.has_answer_f1 or 0, scores.no_answer_accuracy or 0) > 90


@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3", "Mistral", "OPT", "GPT2"])
def test_other_libraries_read_it(save_decoder: Callable[..., Path], job: Callable[..., ReadTrainJob], kind: str) -> None:
    from transformers import AutoModelForQuestionAnswering

    made = job(start_dir=save_decoder(kind), steps=2)
    train_reader(made, ignore)
    theirs, report = AutoModelForQuestionAnswering.from_pretrained(made.out_dir / "model", output_loading_info=True)
    assert not any(report.values())
    ours, _, _ = load_span_model(made.out_dir / "model")
    ids, mask = rows()
    with torch.no_grad():
        assert torch.equal(theirs(input_ids=ids, attention_mask=mask).start_logits, ours(input_ids=ids, attention_mask=mask).start_logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_decoder_goes_on_to_the_same_bytes(save_decoder: Callable[..., Path], job: Callable[..., ReadTrainJob], kind: str) -> None:
    start = save_decoder(kind)
    whole = job("whole", start_dir=start, precision="bf16")
    train_reader(whole, ignore)
    killed = job("killed", start_dir=start, precision="bf16", checkpoint_seconds=0.0)

    def die(done: float, *_: object, **__: object) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_reader(killed, die)
    assert train_reader(killed, ignore)["resumed_from_step"] > 0
    for name in ("metrics.jsonl", "tune.json", "model/model.safetensors", "model/config.json"):
        assert (whole.out_dir / name).read_bytes() == (killed.out_dir / name).read_bytes(), name


def test_bf16_steps_are_near_those_of_fp32(compiled: Compiled, save_decoder: Callable[..., Path]) -> None:
    examples, _ = world()
    folder = save_decoder("Gemma3Text")
    found = []
    for precision in ("fp32", "bf16"):
        model, tokenizer, _ = load_span_model(folder)
        torch.manual_seed(0)
        torch.nn.init.normal_(model.qa_outputs.weight)
        table = TrainingTable.build(examples, (), Layout.of(tokenizer, decoder=True), Settings(max_length=128))
        told: dict[str, Any] = {"precision": precision, "dropout": 0.0, "seed": 0, "compiled": compiled if precision == "bf16" else None}
        network = Network.of(model, table, **told)
        outputs = network.read(StepRows((0, 1, 2, 3)), vectors=False)
        place = outputs.start_RL > -1e8
        found.append(outputs.start_RL[place].detach())
        assert (model.config._attn_implementation == NAMES[torch.bfloat16]) == (precision == "bf16")
    assert float((found[0] - found[1]).norm()) < 0.05 * float(found[0].norm())


@pytest.mark.parametrize("kind", ["Llama", "Gemma3Text", "Qwen2"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_compiled_attention_looks_back_within_its_window(
    either: Compiled, save_decoder: Callable[..., Path], kind: str, precision: torch.dtype
) -> None:
    model, _, _ = load_span_model(save_decoder(kind, **({"sliding_window": 7} if kind == "Gemma3Text" else {})))
    model.set_attn_implementation("eager")
    tokens, mask = rows()
    exact = read(model, tokens, mask)[mask.bool()]
    assert use_compiled(model, either)
    assert model.config._attn_implementation == NAMES[either.dtype]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        found = read(model, tokens, mask)[mask.bool()].float()
    assert float((found - exact).norm()) < (0.02 if precision == torch.bfloat16 else 1e-5) * float(exact.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_flops_equal_what_torch_counts(save_decoder: Callable[..., Path], kind: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model, _, _ = load_span_model(save_decoder(kind, **({"head_dim": 24} if kind.startswith("Gemma") else {})))
    model.set_attn_implementation("eager")
    ids = torch.arange(10, 10 + 3 * 24).reshape(3, 24)
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        model(input_ids=ids)
    told = ReaderShape.of(model).forward_flops(3 * 24, 3 * 24 * 24)
    assert told == pytest.approx(counted.get_total_flops(), rel=0.01)
