"""The `transformers` engine: the model's own forward and cache, batched and left-padded. The yardstick, and the way for any architecture.

    engine = Transformers(batch_size=8)

Padding and batch size move roundings, so requests are answered in fixed groups of `batch_size`, which a resumed run keeps together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from campana.generation.engine import Completion, Engine, Greedy, Phases, Request, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from campana.native.compiled import Compiled


class Transformers(Engine):
    """transformers' forward with its cache, a fixed batch at a time, left-padded."""

    kind: Literal["transformers"] = "transformers"
    batch_size: int = Field(16, ge=1)
    """Prompts of a batch. It can move roundings, so it is in the key."""

    @property
    def group_size(self) -> int | None:
        """A batch: its members are padded to its longest."""
        return self.batch_size

    def complete(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        sampling: Greedy | Sample,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        on_tokens: Callable[[int], None],
        phases: Phases | None = None,
        compiled: Compiled | None = None,  # noqa: ARG002 (transformers computes everything)
    ) -> Iterator[Completion]:
        """See `Engine`; batches in the order of the requests."""
        for start in range(0, len(requests), self.batch_size):
            group = requests[start : start + self.batch_size]
            yield from _complete_batch(model, group, sampling, max_new_tokens, stop_ids, on_tokens, phases or Phases())


def _complete_batch(
    model: PreTrainedModel,
    requests: Sequence[Request],
    sampling: Greedy | Sample,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    on_tokens: Callable[[int], None],
    phases: Phases,
) -> Iterator[Completion]:
    import torch

    from campana.generation.sampling import choose

    longest = max(len(request.prompt_ids) for request in requests)
    ids = torch.zeros(len(requests), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, request in enumerate(requests):
        ids[row, longest - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
        mask[row, longest - len(request.prompt_ids) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache: Any = None
    answers: list[list[int]] = [[] for _ in requests]
    is_open = [True] * len(requests)
    for draw in range(max_new_tokens):
        started = time.perf_counter()
        with torch.no_grad():
            out: Any = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
        cache = out.past_key_values
        tokens = choose(out.logits[:, -1], sampling, [request.id for request in requests], [draw] * len(requests))
        num_new = sum(is_open)
        ended: list[Completion] = []
        for row, token in enumerate(tokens):
            if not is_open[row]:
                continue
            is_stop = token in stop_ids
            answers[row] += [] if is_stop else [token]
            if is_stop or draw + 1 == max_new_tokens:
                is_open[row] = False
                ended.append(Completion(requests[row].id, tuple(answers[row]), "stop" if is_stop else "length"))
        seconds = time.perf_counter() - started
        phases.prefill_seconds += seconds * (draw == 0)
        phases.decode_seconds += seconds * (draw > 0)
        on_tokens(num_new)
        yield from ended
        if not any(is_open):
            return
        ids, positions = torch.tensor(tokens)[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones(len(requests), 1, dtype=mask.dtype)], dim=1)
