"""How fast and how big answering is here: a few passes of an engine on a stage's own prompts, and the profile fitted to them.

    profile, lengths = answer_profile(spec, shape, model_dir, adapter_dir, prompts, result_path)

It owns how long that measurement is. Two calls with many and with few answers under way tell a step's time by its rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from campana.errors import StageFailed
from campana.forecast.answers import AnsweringPasses
from campana.forecast.children import Others, in_child, line
from campana.forecast.predict import engine_passes
from campana.forecast.profile import ROW_QUANTUM, AnswerProfile, counted_answering_bytes, padded_rows, place_bytes, read_flops
from campana.models.cost import BYTES
from campana.models.shape import Shape

FULL_ROWS, FEW_ROWS = 128, 32
"""Answers under way at once in the two measured calls."""
FIRST_NEW, SECOND_NEW = 4, 16
"""New tokens of an answer in them."""


def answer_profile(
    spec: Any, shape: Shape, model_dir: Path, adapter_dir: Path | None, prompts: list[list[int]], result_path: Path, cache_dir: Path
) -> tuple[AnswerProfile, list[int]]:
    """Run a few passes of a `generate` stage's engine on its own prompts, and fit its profile; and the lengths of some whole answers."""
    others = Others()
    found = in_child(run_answers, result_path, spec, model_dir, adapter_dir, prompts, cache_dir)
    busy = others.share()
    for name in ("load_seconds", "adapted_load_seconds", "other_seconds", "memory_byte_seconds"):
        found[name] *= 1 - busy
    for call in found["calls"]:
        call["told"] = (np.asarray(call["told"]) * (1 - busy)).tolist()
    each = BYTES[spec.precision]
    calls: list[AnsweringPasses] = []
    for call in found["calls"]:
        passes = engine_passes(spec.engine, call["prompts"], call["answers"], paged=found["paged"])
        if passes is None or len(passes.passes) != len(call["told"]):
            raise StageFailed(f"the schedule of the engine {spec.engine.kind!r} is not known: its time is not predicted")
        calls.append(passes)
    first, second = calls
    second_call = found["calls"][1]
    quantum = ROW_QUANTUM if spec.engine.group_size is None else 1
    place_seconds = found["memory_byte_seconds"]
    rows: list[float] = []
    times: list[float] = []
    read: list[tuple[float, float]] = []
    for call, told in zip(calls, found["calls"], strict=True):
        spent = np.diff(np.asarray([[0.0, 0.0], *told["told"]]), axis=0)
        for number, (one, (prefill, decode)) in enumerate(zip(call.passes, spent, strict=True)):
            if one.rows:
                rows.append(padded_rows(one.rows, quantum))
                times.append(max(1e-6, float(decode) - one.places * place_bytes(shape, each) * place_seconds))
            if one.read_tokens and number > 0:
                read.append((read_flops(one, shape), float(prefill)))
    opening = [float(call["told"][0][0]) for call in found["calls"]]
    reads = [read_flops(call.passes[0], shape) for call in calls]
    if read:
        pass_seconds, flop_seconds = line(*zip(*read, strict=True))
    else:
        pass_seconds, flop_seconds = 0.0, reading_rate(opening, reads)
    step_seconds, row_seconds = line(rows, times)
    return AnswerProfile(
        load_seconds=found["load_seconds"],
        merge_seconds=max(0.0, found["adapted_load_seconds"] - found["load_seconds"]),
        other_seconds=found["other_seconds"],
        opening_seconds=max(0.0, opening[0] - pass_seconds - reads[0] * flop_seconds),
        read_pass_seconds=pass_seconds,
        read_flop_seconds=flop_seconds,
        step_seconds=step_seconds,
        step_row_seconds=row_seconds,
        place_byte_seconds=place_seconds,
        memory_offset_bytes=found["peak_memory_bytes"] - max(counted_answering_bytes(call, shape, each) for call in (first, second)),
        row_quantum=quantum,
        paged=found["paged"],
        busy=busy,
    ), whole_lengths(second_call["answers"], second_call["cut"], spec.max_new_tokens)


def reading_rate(opening: Sequence[float], reads: Sequence[float]) -> float:
    """Seconds an operation of reading, from the first passes of two calls, at least 0.

    What both passes have in common is the engine's own; the rest is reading. Of passes alike (a suite of a prompt or two) nothing can be
    told apart: all of their time is taken for reading.
    """
    if reads[0] > reads[1]:
        return max(0.0, (opening[0] - opening[1]) / (reads[0] - reads[1]))
    return max(0.0, opening[0] / reads[0])


def whole_lengths(lengths: Sequence[int], is_cut: Sequence[bool], most: int) -> list[int]:
    """Answers that the measurement cut, at the lengths that they would have had: answers end at the rate at which those seen did.

    The rate is ends a token (the maximum likelihood of a constant hazard under censoring); the cut ones get its quantiles.
    """
    ended = len(lengths) - sum(is_cut)
    going_on = 1 - ended / max(1, sum(lengths))
    found: list[int] = []
    place = 0
    for length, cut in zip(lengths, is_cut, strict=True):
        if not cut:
            found.append(length)
            continue
        place += 1
        share = (place - 0.5) / sum(is_cut)
        more = np.inf if going_on >= 1 else 0 if going_on <= 0 else np.log(1 - share) / np.log(going_on)
        found.append(int(min(most, length + np.ceil(more))))
    return found


def run_answers(spec: Any, model_dir: Path, adapter_dir: Path | None, prompts: list[list[int]], cache_dir: Path) -> dict[str, Any]:
    """Two calls of the engine: many prompts and few tokens, some prompts to the end of their answers; after each pass, its phases."""
    import torch

    from campana.data.templates import load_template
    from campana.generation.engine import Greedy, Phases, Request
    from campana.generation.engines.packed import Packed
    from campana.generation.loop import is_paged
    from campana.generation.meter import peak_memory_bytes
    from campana.models.load import load_model, load_tokenizer
    from campana.native.compiled import Compiled

    start = time.perf_counter()
    template = load_template(spec.template, load_tokenizer(model_dir))
    other = time.perf_counter() - start
    start = time.perf_counter()
    model = load_model(model_dir, precision=spec.precision)
    load = time.perf_counter() - start
    compiled = Compiled.find(spec.precision, cache_dir)
    ends: Any = getattr(model.generation_config, "eos_token_id", None)
    stops = template.stop_ids | frozenset([ends] if isinstance(ends, int) else ends or ())
    calls: list[dict[str, Any]] = []
    full = min(FULL_ROWS, len(prompts))
    few = min(FEW_ROWS, -(-full // 4))  # of a small suite too, the second call has fewer under way than the first
    plans = ((full, min(FIRST_NEW, spec.max_new_tokens), frozenset[int]()), (few, min(SECOND_NEW, spec.max_new_tokens), stops))
    for count, most, stop_ids in plans:
        chosen = [prompts[k * len(prompts) // count] for k in range(count)]
        requests = [Request(f"{number:06}", tuple(ids)) for number, ids in enumerate(chosen)]
        phases, told = Phases(), list[list[float]]()

        def tell(_: int, phases: Phases = phases, told: list[list[float]] = told) -> None:
            told.append([phases.prefill_seconds, phases.decode_seconds])

        lengths = dict.fromkeys((request.id for request in requests), 0)
        cut, shared = set[str](), 0
        for done in spec.engine.complete(model, requests, Greedy(), most, stop_ids, tell, phases, compiled):
            lengths[done.id] = len(done.token_ids) + (done.finish == "stop")
            shared = max(shared, done.num_shared)
            cut |= {done.id} if done.finish == "length" else set()
        calls.append(  # prompts without what all begin with, where that was read once
            {
                "cut": [name in cut for name in lengths],
                "prompts": [len(ids) - shared for ids in chosen],
                "answers": list(lengths.values()),
                "told": told,
            }
        )
    peak = peak_memory_bytes()
    paged = isinstance(spec.engine, Packed) and is_paged(model, compiled)
    del model
    adapted = load
    if adapter_dir is not None:
        start = time.perf_counter()
        load_model(model_dir, adapter_dir, precision=spec.precision)
        adapted = time.perf_counter() - start
    moved = torch.ones(1 << 25)
    copy = torch.empty_like(moved)
    copy.copy_(moved)
    start = time.perf_counter()
    copy.copy_(moved)
    return {
        "calls": calls,
        "paged": paged,
        "load_seconds": load,
        "adapted_load_seconds": adapted,
        "other_seconds": other,
        "memory_byte_seconds": (time.perf_counter() - start) / (2 * moved.numel() * 4),
        "peak_memory_bytes": peak,
    }
