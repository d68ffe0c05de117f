"""From a step's windows to logits and span vectors: the one place of training that touches the transformers model.

    network = Network.of(model, table, precision="bf16", dropout=0.1, seed=0, compiled=None)
    outputs = network.read(rows, step=3, vectors=False)

Rows of one length are read together and never padded to a fixed length; bf16 is autocast over float32 weights. Attention is compiled
(on a CPU), else transformers' `eager`: with rows this short its backward pass is faster than PyTorch's fused one on a CPU. A decoder's
norms, gated parts and matrices are computed as in tuning.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.nn import functional

from campana.reading.attention import use_compiled
from campana.reading.cost import ReaderShape
from campana.reading.reader import head_logits, hidden_states, model_inputs
from campana.reading.span_model import is_decoder
from campana.reading.training.dropout import Noise, replace_dropout
from campana.reading.training.objective import NEVER, Outputs, StepRows
from campana.reading.training.plan import passes
from campana.reading.training.questions import NULL, TrainingTable
from campana.tuning.forward import compute_type
from campana.tuning.kernels import fuse

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor
    from transformers import PreTrainedModel

    from campana.native.compiled import Compiled

Precision = Literal["fp32", "bf16"]
PASS_TOKENS = 4096
"""Of one forward pass, padding included; all passes of a step share one backward pass. Not an option: it moves dropout's noise."""


@dataclass(frozen=True, eq=False)
class Network:
    """A model that is ready to learn from a table."""

    model: PreTrainedModel
    table: TrainingTable
    precision: Precision
    noise: Noise
    num_dropouts: int
    """Places where training drops hidden states."""
    shape: ReaderShape
    """Of the model as it was."""

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        table: TrainingTable,
        *,
        precision: Precision,
        dropout: float,
        seed: int,
        compiled: Compiled | None = None,
    ) -> Network:
        """Prepare the model, in place. `compiled`: what may compute its attention."""
        noise, shape = Noise(seed), ReaderShape.of(model)
        num_dropouts = replace_dropout(model, dropout, noise)
        model.set_attn_implementation("eager")
        use_compiled(model, compiled)
        if is_decoder(model.config):  # what it replaces are RMS norms, gated parts and matrices
            fuse(model.base_model, compute_type(precision), compiled and compiled.elementwise)
        return cls(model, table, precision, noise, num_dropouts, shape)

    @property
    def width(self) -> int:
        """Numbers of a span vector."""
        size: int = self.model.config.hidden_size
        return 2 * size

    def read(self, rows: StepRows, *, vectors: bool) -> Outputs:
        """Logits of all rows of a step, in their order, and their span vectors where they are wanted."""
        windows = np.array(rows.windows)
        parts = passes(self.table.lengths[windows], PASS_TOKENS)
        longest = int(self.table.lengths[windows].max())
        found = [self._pass(windows[part], longest, vectors) for part in parts]
        order = torch.from_numpy(np.argsort(np.concatenate(parts)))
        columns: list[Tensor] = [torch.cat(column).index_select(0, order.to(column[0].device)) for column in zip(*found, strict=True)]
        return Outputs(columns[0], columns[1], columns[2], columns[3] if vectors else None)

    def _pass(self, windows: np.ndarray[Any, Any], longest: int, vectors: bool) -> list[Tensor]:
        table, model = self.table, self.model
        batch = table.group.collate(windows)
        with self._arithmetic():
            hidden = hidden_states(model, **model_inputs(model, batch))
        start, end = head_logits(model, hidden.float())
        allowed = batch.can_end
        allowed[np.arange(len(windows)), batch.null_at] = True
        never = ~torch.from_numpy(allowed).to(start.device)
        room = (0, longest - allowed.shape[1])
        logits = [functional.pad(each.masked_fill(never, NEVER), room, value=NEVER) for each in (start, end)]
        target = np.stack([table.target_first[windows], table.target_last[windows]], axis=1)
        columns = [*logits, torch.from_numpy(np.where(target == NULL, batch.null_at[:, None], target)).to(start.device)]
        if vectors:
            columns.append(_span_vectors(hidden, table.span_first[windows], table.span_last[windows]))
        return columns

    @contextlib.contextmanager
    def _arithmetic(self) -> Generator[None]:
        if self.precision == "fp32":
            yield
            return
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16):
            yield


def _span_vectors(hidden_BLH: Tensor, first_B: np.ndarray[Any, Any], last_B: np.ndarray[Any, Any]) -> Tensor:
    """(B, 2H) float32: hidden states of the first and last token of each row's span; zeros where a row has none."""
    row = torch.arange(len(first_B), device=hidden_BLH.device)
    ends = [hidden_BLH[row, torch.from_numpy(np.maximum(place, 0)).to(hidden_BLH.device)].float() for place in (first_B, last_B)]
    known = torch.from_numpy(first_B != NULL).to(hidden_BLH.device, torch.float32)
    return torch.cat(ends, dim=1) * known.unsqueeze(1)
