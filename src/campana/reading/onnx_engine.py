"""A reader whose model is an ONNX file: the same windows, the same decoder, another engine for the logits.

    reader = Reader.load(folder)          # a folder with model.onnx is read here, one with model.safetensors by torch

Needs onnxruntime (`pip install 'campana[onnx]'`). The file is a graph of standard operators: it holds no code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from campana.errors import ModelError
from campana.models.folder import read_json
from campana.models.load import load_tokenizer
from campana.reading.layout import Layout
from campana.reading.windows import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from campana.reading.reader import Forward, Reader

MODEL = "model.onnx"
FACTS = "export.json"
SCHEMA = "campana.reader.export/1"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = ("start_logits", "end_logits")


def has_onnx(folder: Path) -> bool:
    """Whether the folder is an exported reader."""
    return (folder / MODEL).is_file()


def load_onnx_reader(folder: Path) -> Reader:
    """The exported reader in a folder. ModelError: no onnxruntime, a damaged graph, or one that `campana read export` did not write."""
    from campana.reading.reader import Reader, read_stored

    facts = read_json(folder / FACTS) if (folder / FACTS).is_file() else {}
    if facts.get("schema") != SCHEMA:
        raise ModelError(
            f"a {MODEL} without its {FACTS}: what it reads is not known",
            where=str(folder),
            hint="export it again: campana read export --model DIR --out DIR",
        )
    layout = Layout.of(load_tokenizer(folder), decoder=bool(facts.get("decoder")))
    return Reader.assemble(onnx_forward(folder / MODEL), layout, read_stored(folder), int(facts["longest_input"]))


def onnx_forward(path: Path) -> Forward:
    """The graph as a function of a batch, with as many threads as torch uses."""
    import torch

    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own, one a kind of damage
        raise ModelError(f"onnxruntime cannot read this model: {str(error)[:300]}", where=str(path), hint="export it again") from error
    names = [item.name for item in session.get_inputs()]
    if not set(names) <= set(INPUTS) or [item.name for item in session.get_outputs()] != list(OUTPUTS):
        raise ModelError(
            f"its inputs are {', '.join(names)}: not a reader of campana", where=str(path), hint="export it with campana read export"
        )

    def forward(batch: Batch) -> tuple[Tensor, Tensor]:
        columns = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "token_type_ids": batch.token_type_ids}
        start, end = session.run(list(OUTPUTS), {name: columns[name] for name in names})
        return torch.from_numpy(start), torch.from_numpy(end)

    return forward


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("ONNX readers need onnxruntime, which is not installed", hint="pip install 'campana[onnx]'") from error
    return onnxruntime
