"""What a `generate` stage says of itself. Counts are the same in every run, killed or not (but that a run which goes on reads
once more what prompts share); seconds, rates and memory are of this run.

meter(records, phases, load_seconds, new_tokens, shape)
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from campana.generation.engine import Phases
from campana.generation.turns import TurnRecord
from campana.models.cost import generation_flops
from campana.models.shape import Shape


def meter(records: Iterable[TurnRecord], phases: Phases, load_seconds: float, new_tokens: int, shape: Shape | None) -> dict[str, Any]:
    """Counts over all turns of all answers; `new_tokens` were made by this run, in the time of `phases`. `shape` None: no FLOPs."""
    turns = list(records)
    busy = phases.prefill_seconds + phases.decode_seconds
    prompt_tokens, completion_tokens = sum(t.num_prompt_tokens for t in turns), sum(t.num_completion_tokens for t in turns)
    return {
        "num_items": len({turn.item_id for turn in turns}),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "shared_tokens": sum(t.num_shared_tokens for t in turns),
        "tokens": prompt_tokens + completion_tokens,
        "truncated": len({turn.item_id for turn in turns if turn.finish == "length"}),
        "flops": None if shape is None else generation_flops(shape, [_lengths(turn) for turn in turns]),
        "seconds": {
            "load": round(load_seconds, 3),
            "prefill": round(phases.prefill_seconds, 3),
            "decode": round(phases.decode_seconds, 3),
        },
        "tokens_per_second": round(new_tokens / busy, 1) if new_tokens else None,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _lengths(turn: TurnRecord) -> tuple[int, int, int]:
    return turn.num_prompt_tokens, turn.num_completion_tokens, turn.num_shared_tokens


def peak_memory_bytes() -> int:
    """The most resident memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # VmHWM, not ru_maxrss: the latter survives exec and can be the parent's
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
