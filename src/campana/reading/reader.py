"""A reader: a transformers encoder or decoder with a span head, its tokenizer, and how it reads. Loading, saving, answering.

    reader = Reader.load(Path("my-reader"))
    for answer in reader.answer(read_examples(Path("questions.jsonl"), Problems())):
        print(answer.to_json())

A reader's folder is an ordinary transformers question-answering model (config.json, model.safetensors, tokenizer.json), which other
libraries read as well (where transformers has such a class for its kind: not for Gemma), plus reader.json: settings, threshold,
calibration and what they were fitted on. A folder without reader.json (a model from elsewhere) reads with the default settings,
uncalibrated. One with model.onnx (`campana read export`) is read by onnxruntime; all but the logits is the same code. safetensors, ONNX
and JSON only; no pickle, no code from a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from campana.errors import ModelError
from campana.models.folder import read_json
from campana.models.load import Precision
from campana.models.quiet import quiet
from campana.reading.answer import Found, ReaderAnswer, answer_of
from campana.reading.calibration import Calibration, calibration_from_dict
from campana.reading.combine import combine
from campana.reading.cost import ReaderShape
from campana.reading.decode import decode
from campana.reading.examples import Example
from campana.reading.layout import Layout
from campana.reading.onnx_engine import has_onnx, load_onnx_reader
from campana.reading.settings import Settings
from campana.reading.span_model import HEAD, is_decoder, load_span_model, longest_input
from campana.reading.threshold import Threshold
from campana.reading.windows import Batch, Group, groups

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCHEMA = "campana.reader/1"
BATCH_TOKENS = 4096
"""Tokens of a batch, padding included; on two cores larger ones are no faster."""

Forward = Callable[[Batch], "tuple[Tensor, Tensor]"]
"""A batch -> start and end logits, (B, L) each."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A model that reads. `forward` is the model itself, or another engine for it (ONNX)."""

    forward: Forward
    layout: Layout
    settings: Settings
    threshold: Threshold | None = None
    calibration: Calibration | None = None
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What reader.json says of how it was made."""
    batch_tokens: int = BATCH_TOKENS
    shape: ReaderShape | None = None
    """What its work is counted by; None for an exported reader."""

    @classmethod
    def load(cls, folder: Path, precision: Precision = "fp32", cache_dir: Path | None = None) -> Reader:
        """The reader in a folder: torch's, or an exported one. ModelError for a folder that holds none, or a head that was never trained.

        `bf16`: the encoder computes in bfloat16, the head in float32. An exported reader has the precision it was exported with.
        `cache_dir`: where compiled code is kept, which computes attention; None: the cache folder in the person's home.
        """
        if has_onnx(folder):
            if precision != "fp32":
                raise ModelError("an exported reader cannot be read in bf16", where=str(folder), hint="leave --precision out")
            return load_onnx_reader(folder)
        import torch

        from campana.native.compiled import Compiled
        from campana.reading.attention import use_compiled

        model, tokenizer, fresh = load_span_model(folder)
        if fresh:
            raise ModelError(
                "this is a model without a span head: it cannot read yet",
                where=str(folder),
                hint="give the folder of a trained reader",
            )
        reader = cls.of(model, tokenizer, read_stored(folder))
        if precision == "bf16":
            model.base_model.to(torch.bfloat16)
        use_compiled(model, Compiled.find(precision, cache_dir))
        return reader

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stored: Mapping[str, Any] | None = None) -> Reader:
        """A reader of a model in memory; `stored` is what its reader.json says."""
        reader = cls.assemble(
            model_forward(model.eval()),
            Layout.of(tokenizer, decoder=is_decoder(model.config)),
            stored or {},
            longest_input(model, tokenizer),
        )
        return replace(reader, shape=ReaderShape.of(model))

    @classmethod
    def assemble(cls, forward: Forward, layout: Layout, stored: Mapping[str, Any], longest: int) -> Reader:
        """A reader of any engine that takes at most `longest` tokens, so its windows are no longer; `stored` is what reader.json says."""
        settings = Settings.from_dict(stored.get("settings") or {})
        if settings.max_length > longest:
            settings = replace(settings, max_length=longest)
        threshold, calibration = stored.get("threshold"), stored.get("calibration")
        return cls(
            forward,
            layout,
            settings,
            Threshold.from_dict(threshold) if threshold else None,
            calibration_from_dict(calibration) if calibration else None,
            stored.get("about") or {},
        )

    def find(self, examples: Iterable[Example]) -> Iterator[Found]:
        """The best spans of each question, in order, before any threshold. Streams: memory does not grow with the number of questions."""
        for group in groups(examples, self.layout, self.settings):
            yield from self._find_in(group)

    def answer(self, examples: Iterable[Example], *, threshold: float | None = None, num_candidates: int = 5) -> Iterator[ReaderAnswer]:
        """An answer to each question, in order. `threshold`: None means the fitted one, or 0 where none was fitted."""
        for found in self.find(examples):
            yield self.say(found, threshold, num_candidates)

    def say(self, found: Found, threshold: float | None = None, num_candidates: int = 5) -> ReaderAnswer:
        """The answer that follows from what was found."""
        p_no_answer = None
        if self.calibration is not None:
            p_no_answer = float(self.calibration.p_no_answer(np.array([found.margin]))[0])
        return answer_of(found, self.bar if threshold is None else threshold, p_no_answer, num_candidates)

    @property
    def bar(self) -> float:
        """The threshold in use: the fitted one, or 0."""
        return self.threshold.value if self.threshold else 0.0

    def stored(self) -> dict[str, Any]:
        """What reader.json holds."""
        return {
            "schema": SCHEMA,
            "settings": self.settings.as_dict(),
            "threshold": self.threshold.as_dict() if self.threshold else None,
            "calibration": self.calibration.as_dict() if self.calibration else None,
            "about": dict(self.about),
        }

    def _find_in(self, group: Group) -> Iterator[Found]:
        num_windows, num_best = len(group.of_example), self.settings.num_best
        score = np.empty((num_windows, num_best), dtype=np.float32)
        start = np.empty((num_windows, num_best), dtype=np.int64)
        end = np.empty((num_windows, num_best), dtype=np.int64)
        null = np.empty(num_windows, dtype=np.float32)
        for windows in group.batches(self.batch_tokens):
            batch = group.collate(windows)
            columns = spans_of(batch, self.forward, group, self.settings)
            score[windows], start[windows], end[windows], null[windows] = columns
        verdicts = combine(self.settings.combine, len(group.examples), group.of_example, score, start, end, null)
        num_of = np.bincount(group.of_example, minlength=len(group.examples))
        for index, example in enumerate(group.examples):
            kept = int((verdicts.start[index] >= 0).sum())
            yield Found(
                example,
                verdicts.margin[index, :kept],
                verdicts.start[index, :kept],
                verdicts.end[index, :kept],
                group.passages[index],
                int(num_of[index]),
                group.question_was_cut(index),
            )


def spans_of(batch: Batch, forward: Forward, group: Group, settings: Settings) -> tuple[Any, Any, Any, Any]:
    """(scores, first passage tokens, last passage tokens, null scores) of a batch's windows, as arrays."""
    import torch

    with torch.inference_mode():
        start_BL, end_BL = (logits.float().numpy() for logits in forward(batch))
    found = decode(
        start_BL,
        end_BL,
        batch.can_start,
        batch.can_end,
        batch.null_at,
        num_best=settings.num_best,
        max_answer_tokens=settings.max_answer_tokens,
    )
    shift = (group.first[batch.windows] - batch.passage_at)[:, None]
    first, last = found.start + shift, found.end + shift
    if (absent := found.start < 0).any():
        first[absent] = last[absent] = -1
    return found.score, first, last, found.null


def model_forward(model: PreTrainedModel) -> Forward:
    """The model as a function of a batch, on the device where it is; logits come back to the CPU."""

    from campana.models.products import quick_products

    def forward(batch: Batch) -> tuple[Tensor, Tensor]:
        with quick_products():
            logits = span_logits(model, **model_inputs(model, batch))
        return logits[0].cpu(), logits[1].cpu()

    return forward


def model_inputs(model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` and, where the model has them, `token_type_ids`, on the model's device."""
    import torch

    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if takes_types(model):
        inputs["token_type_ids"] = batch.token_type_ids
    return {name: torch.from_numpy(value).to(model.device) for name, value in inputs.items()}


def takes_types(model: PreTrainedModel) -> bool:
    """Whether the model tells question from passage by type ids."""
    return getattr(model.config, "type_vocab_size", 0) > 1


def hidden_states(model: PreTrainedModel, **inputs: Tensor) -> Tensor:
    """(B, L, H): the encoder's last layer, which the head reads. For losses that look at span vectors."""
    return model.base_model(**inputs).last_hidden_state


def head_logits(model: PreTrainedModel, hidden_BLH: Tensor) -> tuple[Tensor, Tensor]:
    """Start and end logits, (B, L) each, of hidden states; in the head's own precision."""
    head = getattr(model, HEAD)
    logits_BL2 = head(hidden_BLH.to(head.weight.dtype))
    return logits_BL2[..., 0], logits_BL2[..., 1]


def span_logits(model: PreTrainedModel, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Start and end logits, (B, L) each."""
    return head_logits(model, hidden_states(model, **inputs))


def read_stored(folder: Path) -> dict[str, Any]:
    """What reader.json says; empty where there is none."""
    path = folder / "reader.json"
    if not path.is_file():
        return {}
    stored = read_json(path)
    if stored.get("schema") != SCHEMA:
        raise ModelError(
            f"its schema is {stored.get('schema')!r}, not {SCHEMA!r}", where=str(path), hint="was it written by another version?"
        )
    return stored


def write_stored(folder: Path, stored: Mapping[str, Any]) -> None:
    """Write reader.json, whole or not at all."""
    write_json(folder / "reader.json", stored)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of JSON, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def save_reader(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, reader: Reader) -> None:
    """Write a reader's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        model.save_pretrained(folder, save_original_format=not is_decoder(model.config))  # else with a language model's names
        tokenizer.save_pretrained(folder)
    write_stored(folder, reader.stored())
