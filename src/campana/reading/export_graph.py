"""A span model -> an ONNX graph with any number of windows of any length, and its int8 form."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from campana.errors import ModelError
from campana.models.quiet import quiet
from campana.reading.onnx_engine import INPUTS, OUTPUTS
from campana.reading.reader import span_logits, takes_types

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

LARGEST_FILE = 1_800_000_000
"""Bytes of weights that go into the graph's own file; protobuf ends at 2 GiB, larger ones get a file beside it."""


def write_graph(model: PreTrainedModel, path: Path) -> None:
    """Write the model as a graph: `start_logits`, `end_logits` (B, L) float32 of int64 inputs (B, L). ModelError where torch cannot."""
    import torch

    _need("onnx", "onnxscript")
    names = INPUTS if takes_types(model) else INPUTS[:2]

    class Spans(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            return span_logits(self.model, input_ids=input_ids, attention_mask=attention_mask, **types)

    # Two windows of unlike lengths: an exporter that sees no padding may drop the mask.
    ids = torch.full((2, 9), 1, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    inputs = (ids, mask, torch.zeros_like(ids))[: len(names)]
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    with quiet(), _silent():
        try:
            torch.onnx.export(
                Spans().eval(),
                inputs,
                str(path),
                input_names=list(names),
                output_names=list(OUTPUTS),
                dynamic_shapes=tuple(dict(free) for _ in names),
                dynamo=True,
                external_data=size > LARGEST_FILE,
                verbose=False,
            )
        except Exception as error:  # the exporter's errors have no common base
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"torch cannot write {type(model).__name__} as ONNX: {told[0][:300]}", hint="read it with torch: it needs no export"
            ) from error


def quantise(source: Path, out: Path) -> None:
    """Weights of the matrix products as int8, one scale a column; activations are scaled as they come (dynamic quantisation)."""
    _need("onnx", "onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _silent():
        quantize_dynamic(source, out, weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=_bytes(source) > LARGEST_FILE)


def _bytes(graph: Path) -> int:
    """Of a graph and the weights beside it."""
    return sum(file.stat().st_size for file in graph.parent.glob(graph.name + "*"))


def _need(*packages: str) -> None:
    from importlib.util import find_spec

    if missing := [name for name in packages if find_spec(name) is None]:
        raise ModelError(f"writing ONNX needs {' and '.join(missing)}, which is not installed", hint="pip install 'campana[onnx]'")


@contextmanager
def _silent() -> Generator[None]:
    """No warnings and no log lines of the exporter and the quantiser inside the block."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
