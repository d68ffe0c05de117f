"""A reader -> a folder with an ONNX graph that reads alike: proved against the model before anything is written, int8 on demand.

    facts = export(Path("reader"), Path("reader-onnx"), held_out, int8=True)
    Reader.load(Path("reader-onnx"))

The folder is a complete reader (model.onnx, tokenizer, config.json, reader.json with settings, threshold and calibration), and
export.json says how it was made: versions, the parity with torch, and for int8 what it costs in quality on the held-out questions.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from campana.errors import DataError, ModelError
from campana.models.cache import sha256_of
from campana.models.quiet import quiet
from campana.reading.examples import Example
from campana.reading.export_graph import quantise, write_graph
from campana.reading.export_parity import BOUND, Parity, awkward_examples, compare
from campana.reading.export_quality import Loss, quality_loss
from campana.reading.onnx_engine import FACTS, MODEL, SCHEMA, load_onnx_reader, onnx_forward
from campana.reading.reader import Reader, read_stored, write_json, write_stored
from campana.reading.span_model import is_decoder, load_span_model, longest_input

MOST_COMPARED = 60
"""Held-out questions on which logits are compared; the quality of int8 is measured on all."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export found out."""

    folder: Path
    parity: Parity
    loss: Loss | None
    """Of int8 against float32; None for a float32 export."""
    facts: dict[str, Any]


def export(source: Path, out: Path, held_out: Sequence[Example] = (), *, int8: bool = False, bound: float = BOUND) -> Exported:
    """Write the reader in `source` as ONNX into `out`, a folder that is not there yet.

    ModelError: a model that cannot be exported, or a graph that differs from it by more than `bound`; then nothing is written.
    DataError: int8 without held-out questions to measure it on, or with documents that the reader has seen.
    """
    if out.exists():
        raise ModelError("this folder is there already", where=str(out), hint="give another one, or delete it first")
    if int8 and not held_out:
        raise DataError("int8 changes the answers, and there is nothing to measure that on", hint="give a FILE of held-out questions")
    model, tokenizer, fresh = load_span_model(source)
    if fresh:
        raise ModelError(
            "this is a model without a span head: it cannot read yet", where=str(source), hint="give the folder of a trained reader"
        )
    reader = Reader.of(model, tokenizer, read_stored(source))
    unfinished = out.with_name(out.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        write_graph(model, unfinished / MODEL)
        with quiet():
            tokenizer.save_pretrained(unfinished)
            model.config.save_pretrained(unfinished)
        write_stored(unfinished, reader.stored())
        checked = [*awkward_examples(reader), *_spread(held_out, MOST_COMPARED)]
        parity = compare(reader.forward, onnx_forward(unfinished / MODEL), checked, reader, bound)
        parity.require()
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "precision": "int8" if int8 else "fp32",
            "longest_input": longest_input(model, tokenizer),
            "decoder": is_decoder(model.config),
            "source_sha256": sha256_of(source),
            "versions": {name: version(name) for name in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")},
            "parity": parity.as_dict(),
            "int8": None,
        }
        write_json(unfinished / FACTS, facts)
        loss = _to_int8(unfinished, held_out, facts) if int8 else None
        unfinished.replace(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return Exported(out, parity, loss, facts)


def _to_int8(folder: Path, held_out: Sequence[Example], facts: dict[str, Any]) -> Loss:
    """Replace the folder's graph by its int8 form, and measure what that costs."""
    exact = load_onnx_reader(folder)
    wide = folder / MODEL
    narrow = folder / ("int8." + MODEL)
    quantise(wide, narrow)
    loss = quality_loss(exact, replace(exact, forward=onnx_forward(narrow)), held_out)
    for file in folder.glob(MODEL + "*"):
        file.unlink()
    narrow.rename(wide)
    facts["int8"] = loss.as_dict()
    write_json(folder / FACTS, facts)
    return loss


def _spread(examples: Sequence[Example], most: int) -> Sequence[Example]:
    """At most `most` of them, evenly spread."""
    return examples if len(examples) <= most else [examples[index * len(examples) // most] for index in range(most)]
