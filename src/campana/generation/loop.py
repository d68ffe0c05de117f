"""Continuous batching: rows that end leave at once, and waiting prompts take their places.

It owns the schedule: who is read when. It refuses nothing that the passes accept, and no schedule moves a token: which rows share a pass is
free (see `lean`), so `max_rows` and `prefill_tokens` are execution only.

    yield from complete(model, requests, Greedy(), 256, frozenset({2}), on_tokens, phases, max_rows=128, prefill_tokens=1024)

Prompts wait longest first (the most memory and, as a rule, the longest answers come early, so the end of a run is not one long straggler).
They are read in packs: once the places that are free hold enough prompt tokens (`generation.schedule`), or nothing else is under way.
What all prompts begin with (a system message, a judge's rules) is read once and kept once, where that moves no answer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from campana.errors import ModelError
from campana.generation.engine import Completion, Greedy, Phases, Request, Sample
from campana.generation.invariance import PROBE_TOKENS, plain_logits, prove, settle
from campana.generation.kv import Pages, Row, Shelf, capacity_for
from campana.generation.lean import QUANTUM, Lent, lent
from campana.generation.passes import open_rows, read_prompts, read_step
from campana.generation.sampling import choose
from campana.generation.schedule import pack_size, shared_ids
from campana.models.rotary import refuse_following

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from campana.native.compiled import Compiled


class _Loop:
    def __init__(
        self,
        forward: Lent,
        requests: Sequence[Request],
        kept: Shelf | Pages,
        sampling: Greedy | Sample,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        max_rows: int,
        prefill_tokens: int,
    ) -> None:
        self._forward, self._sampling = forward, sampling
        self._max_new_tokens, self._stop_ids = max_new_tokens, stop_ids
        self._max_rows, self._prefill_tokens = max_rows, prefill_tokens
        self._waiting = deque(sorted(requests, key=lambda request: (-len(request.prompt_ids), request.id)))
        self._kept = kept
        self._read_for = self._waiting[0]
        """For which request the beginning counts as read."""
        self._num_rows = 0

    @property
    def is_done(self) -> bool:
        return not self._waiting and self._num_rows == 0

    def admit(self) -> list[Completion]:
        """Read a pack of waiting prompts, where that is worth a pass; what ended with its first token."""
        pack = self._next_pack()
        if not pack:
            return []
        rows = [Row(self._waiting.popleft(), length) for length in pack]
        for row in rows:
            self._kept.put(row)
        self._num_rows += len(rows)
        return self._settle(rows, read_prompts(self._forward, rows, self._kept))

    def step(self) -> list[Completion]:
        """One token more for every row; what ended with it."""
        logits = read_step(self._forward, self._kept)
        return self._settle(list(self._kept.rows), logits)

    @property
    def num_rows(self) -> int:
        return self._num_rows

    def _next_pack(self) -> list[int]:
        """How much is left to read of the waiting prompts that are read now."""
        free, shared = self._max_rows - self._num_rows, self._kept.num_shared
        lengths = [len(request.prompt_ids) - shared for request in islice(self._waiting, free)]
        return lengths[: pack_size(lengths, len(self._waiting), self._prefill_tokens, has_rows=self._num_rows > 0)]

    def _settle(self, rows: list[Row], logits: Tensor) -> list[Completion]:
        tokens = choose(logits, self._sampling, [row.request.id for row in rows], [len(row.token_ids) for row in rows])
        ended: list[Completion] = []
        for row, token in zip(rows, tokens, strict=True):
            if token in self._stop_ids:
                ended.append(Completion(row.request.id, tuple(row.token_ids), "stop", self._num_shared(row)))
            elif len(row.token_ids) + 1 == self._max_new_tokens:
                ended.append(Completion(row.request.id, (*row.token_ids, token), "length", self._num_shared(row)))
            else:
                row.token_ids.append(token)
                continue
            self._kept.take_out(row)
            self._num_rows -= 1
        return ended

    def _num_shared(self, row: Row) -> int:
        return 0 if row.request is self._read_for else self._kept.num_shared


def complete(
    model: PreTrainedModel,
    requests: Sequence[Request],
    sampling: Greedy | Sample,
    max_new_tokens: int,
    stop_ids: frozenset[int],
    on_tokens: Callable[[int], None],
    phases: Phases,
    *,
    max_rows: int,
    prefill_tokens: int,
    compiled: Compiled | None = None,
) -> Iterator[Completion]:
    """Completions as they end. ModelError: the model cannot be run by this engine, or not exactly; an empty prompt."""
    if not requests:
        return
    if not all(request.prompt_ids for request in requests):
        raise ModelError("a prompt without tokens cannot be completed", hint="use a chat template")
    longest = max(len(request.prompt_ids) for request in requests) + max_new_tokens
    refuse_following(model, longest, "generate: {{engine: {{kind: transformers, batch_size: 1}}}}")
    started = time.perf_counter()
    probe = max((request.prompt_ids for request in requests), key=len)[:PROBE_TOKENS]
    probe = probe if len(probe) > 1 else probe * 2
    expected = plain_logits(model, probe)
    with lent(model, compiled) as forward:
        lengths = [len(request.prompt_ids) for request in requests]
        rows = min(max_rows, len(requests), affordable_rows(model, longest))
        settle(forward, longest_pass=max(*lengths, min(prefill_tokens, sum(lengths)), rows), most_rows=rows)
        prove(forward, probe, expected)
        kept = open_rows(forward, shared_ids([request.prompt_ids for request in requests]))
        phases.prefill_seconds += time.perf_counter() - started
        loop = _Loop(forward, requests, kept, sampling, max_new_tokens, stop_ids, rows, prefill_tokens)
        while not loop.is_done:
            yield from _timed(loop, on_tokens, phases)


def _timed(loop: _Loop, on_tokens: Callable[[int], None], phases: Phases) -> list[Completion]:
    """One admission and one step, timed and told."""
    started = time.perf_counter()
    before = loop.num_rows
    ended = loop.admit()
    admitted = loop.num_rows + len(ended) - before
    read = time.perf_counter()
    phases.prefill_seconds += read - started
    num_rows = loop.num_rows
    if num_rows:
        ended += loop.step()
    phases.decode_seconds += time.perf_counter() - read
    on_tokens(admitted + num_rows)
    return ended


def is_paged(model: PreTrainedModel, compiled: Compiled | None) -> bool:
    """Whether the rows of this model keep their keys in pages, which all share what they begin with."""
    with lent(model, compiled) as forward:
        return isinstance(open_rows(forward), Pages)


def affordable_rows(model: PreTrainedModel, longest: int) -> int:
    """How many answers of the greatest length half of the free memory can keep keys and values of; at least one."""
    import psutil

    config = model.config.get_text_config()
    head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    num_kv: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    per_row = 2 * config.num_hidden_layers * num_kv * head_dim * model.dtype.itemsize * capacity_for(longest)
    rows = psutil.virtual_memory().available // 2 // per_row
    return max(1, rows // QUANTUM * QUANTUM if rows >= QUANTUM else rows)
