"""The `packed` engine: our own decoding loop over a transformers model. No padding, continuous batching, and exact to the bit.

    engine = Packed()
    for completion in engine.complete(model, requests, Greedy(), 256, stop_ids, on_tokens): ...

The law (a completion does not depend on the other requests) holds bit for bit in the logits, and so for greedy and sampled answers
alike: a run that was killed and goes on with another batch gives the same answers. How: `generation.lean` (matrix products and their
sizes), `generation.attention` and `generation.paged` (each row attends over its own keys), `generation.sampling` (random numbers by
request), and the proof of it at the start of every run in `generation.invariance`. It was measured, not assumed: on two Zen 3 cores, rows
of MKL's fp32 products are equal to the bit for any 12 rows or more, torch's batched products and softmax for any number, its element-wise
kernels for multiples of 16 rows, and its reductions over a strided axis for multiples of 32; so all passes have a multiple of 32 rows,
which costs nothing while many answers are under way. The other way, fixed batches that a resumed run repeats whole, would pay for padding
and for stragglers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from campana.generation.engine import Completion, Engine, Greedy, Phases, Request, Sample
from campana.parts import EXECUTION

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from campana.native.compiled import Compiled


class Packed(Engine):
    """Our own loop: continuous batching without padding; a decoder of transformers whose attention can be exchanged."""

    kind: Literal["packed"] = "packed"
    max_rows: Annotated[int, EXECUTION] = Field(384, ge=1)
    """Most answers under way at once; fewer where the memory for their keys and values would be short."""
    prefill_tokens: Annotated[int, EXECUTION] = Field(2048, ge=1)
    """Most prompt tokens of one pass; a longer prompt has a pass to itself."""

    def complete(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        sampling: Greedy | Sample,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        on_tokens: Callable[[int], None],
        phases: Phases | None = None,
        compiled: Compiled | None = None,
    ) -> Iterator[Completion]:
        """See `Engine`. ModelError: attention that this engine does not know, or logits that differ from transformers'."""
        from campana.generation.loop import complete

        return complete(
            model,
            requests,
            sampling,
            max_new_tokens,
            stop_ids,
            on_tokens,
            phases or Phases(),
            max_rows=self.max_rows,
            prefill_tokens=self.prefill_tokens,
            compiled=compiled,
        )
