"""Language models as readers: they look both ways, learn, and keep their arithmetic; one that cannot look ahead is refused."""

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
from campana.reading.attention import NAME, use_compiled
from campana.reading.cost import EncoderShape
from campana.reading.encoder import load_span_model
from campana.reading.evaluate import evaluate
from campana.reading.layout import Layout
from campana.reading.reader import Reader
from campana.reading.settings import Settings
from campana.reading.training.dropout import Noise, replace_dropout
from campana.reading.training.job import ReadTrainJob, train_reader
from campana.reading.training.network import Network
from campana.reading.training.objective import StepRows
from campana.reading.training.questions import TrainingTable
from campana.reading.windows import group_of

KINDS = ["Llama", "Qwen2", "Qwen3", "Gemma", "Gemma3Text", "Mistral", "Phi3", "GPT2"]


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
def test_every_token_sees_the_whole_row_and_no_padding(save_decoder: Callable[..., Path], kind: str) -> None:
    model, _, fresh = load_span_model(save_decoder(kind))
    assert fresh
    tokens, mask = rows()
    before = read(model, tokens, mask)
    ahead = tokens.clone()
    ahead[0, -1] = 5
    assert not torch.equal(read(model, ahead, mask)[0, 0], before[0, 0])
    padded = torch.where(mask.bool(), tokens, 5)
    assert torch.equal(read(model, padded, mask)[mask.bool()], before[mask.bool()])


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


def test_one_that_was_trained_to_look_back_only_goes_on_so(save_decoder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import LlamaForQuestionAnswering

    folder = save_decoder()
    model = LlamaForQuestionAnswering(tiny_readers.tiny_decoder().config)
    model.save_pretrained(folder)
    loaded, _, fresh = load_span_model(folder)
    assert not fresh
    tokens, mask = rows()
    ahead = tokens.clone()
    ahead[0, -1] = 5
    assert torch.equal(read(loaded, ahead, mask)[0, 0], read(loaded, tokens, mask)[0, 0])


@pytest.mark.parametrize("kind", ["Mamba", "Mpt"])
def test_one_that_cannot_look_ahead_is_refused(tmp_path: Path, kind: str) -> None:
    import transformers

    sizes = {"Mamba": {"hidden_size": 32, "num_hidden_layers": 2}, "Mpt": {"d_model": 32, "n_layers": 2, "n_heads": 2}}[kind]
    config = getattr(transformers, f"{kind}Config")(vocab_size=320, **sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_readers.decoder_tokens().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be made to look ahead"):
        load_span_model(tmp_path)


def test_a_row_is_the_beginning_the_question_a_new_line_and_the_passage() -> None:
    layout = Layout.of(tiny_readers.decoder_tokens())
    examples, _ = world()
    group, _ = group_of(examples[:1], layout, Settings(max_length=128))
    row = group.collate(np.array([0])).input_ids[0]
    told = layout.tokenizer.decode(row.tolist(), skip_special_tokens=False)
    assert told == f"<s>{examples[0].question}\n{examples[0].passage}"
    assert layout.null_index == 0


def test_a_tokenizer_without_a_beginning_is_refused() -> None:
    tokenizer = tiny_readers.decoder_tokens()
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(ModelError, match="beginning"):
        Layout.of(tokenizer)


def test_a_decoder_gets_dropout_that_follows_the_step() -> None:
    model = tiny_readers.tiny_decoder()
    noise = Noise(0)
    plain = read(model, *rows())
    replace_dropout(model, 0.5, noise)
    assert torch.equal(read(model.eval(), *rows()), plain)
    model.train()
    found = []
    for step in (1, 2, 1):
        noise.at(step)
        found.append(read(model, *rows()))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], plain)


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
    written = json.loads((made.out_dir / "model" / "config.json").read_text())
    assert written["is_causal"] is False


def test_a_killed_decoder_goes_on_to_the_same_bytes(save_decoder: Callable[..., Path], job: Callable[..., ReadTrainJob]) -> None:
    start = save_decoder()
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
        table = TrainingTable.build(examples, (), Layout.of(tokenizer), Settings(max_length=128))
        told: dict[str, Any] = {"precision": precision, "dropout": 0.0, "seed": 0, "longest": 128, "compiled": compiled}
        network = Network.of(model, table, **told)
        outputs = network.read(StepRows((0, 1, 2, 3)), vectors=False)
        place = outputs.start_RL > -1e8
        found.append(outputs.start_RL[place].detach())
        assert (model.config._attn_implementation == NAME) == (precision == "bf16")
    assert float((found[0] - found[1]).norm()) < 0.05 * float(found[0].norm())


@pytest.mark.parametrize(("longest", "taken"), [(64, True), (65, False)])
def test_compiled_attention_takes_windows_that_hold_a_row(
    compiled: Compiled, save_decoder: Callable[..., Path], longest: int, taken: bool
) -> None:
    model, _, _ = load_span_model(save_decoder("Gemma3Text", sliding_window=64))
    before = model.config._attn_implementation
    assert use_compiled(model, compiled, longest) == taken
    assert (model.config._attn_implementation == before) == (not taken)


def test_flops_equal_what_torch_counts(save_decoder: Callable[..., Path]) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model, _, _ = load_span_model(save_decoder("Gemma3Text", head_dim=24))
    model.set_attn_implementation("eager")
    ids = torch.arange(10, 10 + 3 * 24).reshape(3, 24)
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        model(input_ids=ids)
    told = EncoderShape.of(model).forward_flops(3 * 24, 3 * 24 * 24)
    assert told == pytest.approx(counted.get_total_flops(), rel=0.01)
