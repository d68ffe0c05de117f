"""Measurements of the probe: each is a function that runs in a child process, and what its figures say of the machine.

It owns how long a measurement is (a few hundred tokens a method, a few passes an engine) and how profiles are fitted to it. The work is
the stages' own: `tuning.job.tune` on real rows, and an engine's `complete` on real prompts.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from campana.core.machine import this_machine
from campana.data.packing import plan_steps
from campana.errors import StageFailed
from campana.executors.local import can_prefork
from campana.forecast.answers import AnsweringPasses
from campana.forecast.known import packs_are_several
from campana.forecast.packs import RowLengths, step_packs
from campana.forecast.profile import (
    ROW_QUANTUM,
    AnswerProfile,
    TuneProfile,
    counted_answering_bytes,
    counted_tuning_bytes,
    forward_pack_flops,
    pack_flops,
    padded_rows,
    place_bytes,
    read_flops,
)
from campana.models.cost import BYTES, num_trainable
from campana.models.shape import Shape

STEP_TOKENS = 224
"""Most tokens of a measured step."""
LARGE_SHARE = 0.65
"""Of a step's tokens in its first pack, where steps are made of several: two sizes tell the time a pack from the time an operation."""
EPOCH_STEPS, EPOCHS = 1.4, 2
"""Where a step is one pack: rows for so many steps, learned so often. What is left of each epoch is a small step; the first step is
taken apart, because it takes memory for the first time."""
SEVERAL_STEPS = 3
"""Where a step is several packs."""
VALIDATION_TOKENS = 128
FULL_ROWS, FEW_ROWS = 128, 32
"""Answers under way at once in the two measured calls."""
FIRST_NEW, SECOND_NEW = 4, 16
"""New tokens of an answer in them."""
UPDATE_BYTES = 28
"""AdamW reads a parameter, its gradient and two moments, and writes three of them: 7 numbers of 4 bytes."""


def in_child(work: Callable[..., Any], result_path: Path, *arguments: Any) -> Any:
    """Run a function in a process of its own and return its JSON. StageFailed: it ended without one."""
    result_path.unlink(missing_ok=True)
    forked = multiprocessing.get_context("fork") if can_prefork() else multiprocessing.get_context("spawn")
    child = forked.Process(target=_run, args=(work, result_path, arguments))
    child.start()
    child.join()
    if not result_path.is_file():
        raise StageFailed(f"the measurement ended with code {child.exitcode} and without a result")
    found = json.loads(result_path.read_text(encoding="utf-8"))
    if "error" in found:
        raise StageFailed(found["error"])
    return found["value"]


def _run(work: Callable[..., Any], result_path: Path, arguments: Sequence[Any]) -> None:
    try:
        text = json.dumps({"value": work(*arguments)})
    except Exception as error:  # told to the parent, in words
        text = json.dumps({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
    partial = result_path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(result_path)


class Others:
    """How much of the machine other processes took while something was measured.

    others = Others()
    ...
    others.share()      # 0.4 of all cores since then, without this process and its ended children
    """

    def __init__(self) -> None:
        self._busy, self._own, self._start = *_cpu_seconds(), time.perf_counter()

    def share(self) -> float:
        """0 .. 0.9. 0 where it cannot be told: a container sees its host's times."""
        import psutil

        cores = this_machine().cores
        if psutil.cpu_count() != cores:
            return 0.0
        busy, own = _cpu_seconds()
        wall = max(1e-3, time.perf_counter() - self._start)
        return min(0.9, max(0.0, (busy - self._busy - (own - self._own)) / (wall * cores)))


def _cpu_seconds() -> tuple[float, float]:
    """Of all processes, and of this one with its ended children."""
    import os

    import psutil

    whole: Any = psutil.cpu_times()
    own = os.times()
    idle = whole.idle + getattr(whole, "iowait", 0.0)
    used = sum(whole[:8]) - idle if len(whole) >= 8 else whole.user + whole.system
    return used, own.user + own.system + own.children_user + own.children_system


def _silent(*_: object, **__: object) -> None:
    """A stage's progress, told to nobody."""


# Models and data


def bring(source: Any, local_path: Path | None, out_dir: Path, cache_dir: Path) -> dict[str, Any]:
    """Bring a model in; seconds and peak."""
    from campana.generation.meter import peak_memory_bytes
    from campana.models.bring import bring_in

    out_dir.mkdir(parents=True)
    start = time.perf_counter()
    bring_in(source, local_path, out_dir, _silent, cache_dir)
    return {"seconds": time.perf_counter() - start, "peak_memory_bytes": peak_memory_bytes()}


def prepare_rows(spec: Any, model_dir: Path, data_paths: Mapping[str, Path], out_dir: Path) -> dict[str, Any]:
    """Prepare rows; their lengths, seconds and peak."""
    from campana.data.prepare import prepare
    from campana.generation.meter import peak_memory_bytes

    out_dir.mkdir(parents=True)
    start = time.perf_counter()
    prepare(
        model_dir=model_dir,
        data_paths=data_paths,
        portions=spec.portions,
        template_name=spec.template,
        max_length=spec.max_length,
        num_validation=spec.validation,
        subset_seed=spec.subset_seed,
        out_dir=out_dir,
        progress=_silent,
    )
    took = {"seconds": time.perf_counter() - start, "peak_memory_bytes": peak_memory_bytes()}
    rows = {name: RowLengths.open(out_dir / f"{name}.arrow").as_json() for name in ("train", "validation")}
    return {**rows, **took}


def prompt_ids(spec: Any, model_dir: Path, suite_path: Path) -> dict[str, Any]:
    """{"turns"}: the token ids of every turn's prompt of every item, earlier answers left empty."""
    from campana.data.suites import choose_items, read_suite
    from campana.data.templates import load_template
    from campana.models.load import load_tokenizer

    template = load_template(spec.template, load_tokenizer(model_dir))
    turns: list[list[list[int]]] = []
    for item in choose_items(read_suite(suite_path, spec.suite_format), spec.max_items):
        ends = [place for place, message in enumerate(item.messages) if message["role"] == "user"]
        turns.append([template.prompt(_until(item.messages, end)) for end in ends])
    return {"turns": turns}


def _until(messages: Sequence[Mapping[str, str]], end: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for message in messages[: end + 1]:
        if message["role"] == "user" and found and found[-1]["role"] == "user":
            found.append({"role": "assistant", "content": ""})
        found.append(dict(message))
    return found


# Tuning


def optimizer_seconds() -> float:
    """Of clipping and one AdamW step, a parameter that learns."""
    import torch

    from campana.tuning import machine

    machine.keep_memory()
    parameters = [torch.nn.Parameter(torch.zeros(1 << 20)) for _ in range(24)]
    optimizer = torch.optim.AdamW(parameters, lr=1e-9, fused=True)
    best = float("inf")
    for _ in range(5):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 1e-3)
        start = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        best = min(best, time.perf_counter() - start)
    return best / sum(parameter.numel() for parameter in parameters)


def tune_profile(spec: Any, shape: Shape, model_dir: Path, data_dir: Path, out_dir: Path, step_seconds: float) -> TuneProfile:
    """Run a few steps of a `tune` stage on its own rows, and fit its profile. The adapter or model stays in `out_dir`."""
    batch = min(spec.batch_tokens, STEP_TOKENS)
    several = packs_are_several(spec)
    micro = max(1, min(spec.micro_batch_tokens, round(batch * LARGE_SHARE))) if several else batch
    epochs = 1.0 if several else float(EPOCHS)
    rows_dir = out_dir.with_name(out_dir.name + "-rows")
    train, held_out = _few_rows(data_dir, rows_dir, micro, round(batch * (SEVERAL_STEPS if several else EPOCH_STEPS)))
    others = Others()
    found = in_child(run_tune, out_dir.with_suffix(".json"), spec, model_dir, rows_dir, out_dir, batch, micro, epochs)
    busy = others.share()
    steps = plan_steps(train.lengths, batch, epochs, 0)
    calls = found["told"]
    alone = len(calls) == sum(map(len, steps)) and len(calls) != sum(len(step_packs(train, members, micro)) for members in steps)
    packs = [each for members in steps for each in step_packs(train, members, micro, alone=alone)]
    learning = num_trainable(shape, spec.method)
    num_first = len(step_packs(train, steps[0], micro, alone=alone))
    spans = np.diff([found["began"], *calls]) if len(calls) == len(packs) else np.zeros(0)
    if len(spans) <= num_first:
        raise StageFailed("too few steps were measured")
    later, times = packs[num_first:], spans[num_first:] * (1 - busy)
    times -= [step_seconds * learning * each.opens_step for each in later]
    pack_seconds, flop_seconds = line([pack_flops(each, shape, spec.method) for each in later], times.tolist())
    fitted = sum(pack_seconds + flop_seconds * pack_flops(each, shape, spec.method) for each in packs[:num_first])
    largest = max(each.tokens for each in packs)
    validated = 2 * sum(forward_pack_flops(each, shape) for each in step_packs(held_out, range(len(held_out)), micro, alone=alone))
    seconds = {phase: spent * (1 - busy) for phase, spent in found["seconds"].items()}
    return TuneProfile(
        load_seconds=seconds["load"],
        other_seconds=max(0.0, found["wall"] - sum(found["seconds"].values())) * (1 - busy),
        first_seconds=max(0.0, float(spans[:num_first].sum()) * (1 - busy) - fitted),
        pack_seconds=pack_seconds,
        flop_seconds=flop_seconds,
        step_seconds=step_seconds,
        validate_flop_seconds=seconds.get("validate", 0.0) / validated if validated else flop_seconds,
        export_seconds=seconds.get("export", 0.0),
        memory_offset_bytes=found["peak_memory_bytes"] - counted_tuning_bytes(largest, shape, spec.method, spec.precision),
        alone=alone,
        busy=busy,
    )


def line(amounts: Sequence[float], times: Sequence[float]) -> tuple[float, float]:
    """(seconds each, seconds an amount), neither below zero, of least relative error."""
    from scipy.optimize import nnls

    weights = 1 / np.maximum(np.asarray(times, np.float64), 1e-9)
    scale = max(float(np.max(amounts)), 1.0)
    design = np.stack([weights, np.asarray(amounts, np.float64) / scale * weights], axis=1)
    fixed, slope = nnls(design, np.ones(len(amounts)))[0]
    return float(fixed), float(slope) / scale


def _few_rows(data_dir: Path, out_dir: Path, micro: int, train_tokens: int) -> tuple[RowLengths, RowLengths]:
    """Rows for the measured steps, taken evenly from the stage's own, none above a pack; and a few held-out ones."""
    from campana.data.prepared import PreparedRows, RowWriter

    out_dir.mkdir(parents=True)
    found: list[RowLengths] = []
    for name, tokens in (("train", train_tokens), ("validation", VALIDATION_TOKENS)):
        rows = PreparedRows.open(data_dir / f"{name}.arrow")
        chosen, total = [], 0
        fitting = [index for index in range(len(rows)) if rows.lengths[index] <= micro] or list(range(min(len(rows), SEVERAL_STEPS)))
        wanted = max(1, round(tokens / max(1.0, float(np.mean(rows.lengths[fitting]))))) if fitting else 0
        order = [fitting[k * len(fitting) // wanted] for k in range(wanted)]  # more than there are: some twice
        for index in order:
            chosen.append(index)
            total += int(rows.lengths[index])
        with RowWriter(out_dir / f"{name}.arrow") as writer:
            picked = [rows.row(index) for index in chosen]
            columns = {
                "ids": [ids.tolist() for ids, _ in picked],
                "supervised": [supervised.tolist() for _, supervised in picked],
                "num_supervised": [int(supervised.sum()) for _, supervised in picked],
                "source": ["probe"] * len(picked),
            }
            writer.write(columns)
        found.append(RowLengths.open(out_dir / f"{name}.arrow"))
    return found[0], found[1]


def run_tune(spec: Any, model_dir: Path, data_dir: Path, out_dir: Path, batch: int, micro: int, epochs: float) -> dict[str, Any]:
    """A short run of the trainer: when each pack was done, phases, peak."""
    from campana.tuning.job import TuneJob, tune

    told: list[float] = []
    job = TuneJob(
        model_dir=model_dir,
        data_dir=data_dir,
        out_dir=out_dir,
        scratch_dir=out_dir.with_name(out_dir.name + "-scratch"),
        method=spec.method,
        learning_rate=1e-6,
        epochs=epochs,
        batch_tokens=batch,
        schedule=spec.schedule,
        optimizer=spec.optimizer,
        max_grad_norm=spec.max_grad_norm,
        precision=spec.precision,
        seed=0,
        budget=1.0,
        export=True,
        num_evaluations=1,
        micro_batch_tokens=micro,
        checkpoint_seconds=1e9,
    )
    start = time.perf_counter()
    meter = tune(job, lambda *_, **__: told.append(time.perf_counter()))
    wall = time.perf_counter() - start
    seconds: Mapping[str, float] = meter["seconds"]
    began = start + seconds["load"] + seconds.get("validate", 0.0) / 2
    return {"told": told, "began": min(began, told[0]), "seconds": seconds, "wall": wall, "peak_memory_bytes": meter["peak_memory_bytes"]}


# Answering


def answer_profile(
    spec: Any, shape: Shape, model_dir: Path, adapter_dir: Path | None, prompts: list[list[int]], result_path: Path
) -> tuple[AnswerProfile, list[int]]:
    """Run a few passes of a `generate` stage's engine on its own prompts, and fit its profile; and the lengths of some whole answers."""
    from campana.forecast.predict import engine_passes

    others = Others()
    found = in_child(run_answers, result_path, spec, model_dir, adapter_dir, prompts)
    busy = others.share()
    for name in ("load_seconds", "adapted_load_seconds", "other_seconds", "memory_byte_seconds"):
        found[name] *= 1 - busy
    for call in found["calls"]:
        call["told"] = (np.asarray(call["told"]) * (1 - busy)).tolist()
    each = BYTES[spec.precision]
    calls: list[AnsweringPasses] = []
    for call in found["calls"]:
        passes = engine_passes(spec.engine, call["prompts"], call["answers"])
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
    else:  # one admission a call: what both calls' openings have in common is the engine's, the rest is reading
        pass_seconds, flop_seconds = 0.0, max(0.0, (opening[0] - opening[1]) / max(1, reads[0] - reads[1]))
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
        busy=busy,
    ), whole_lengths(second_call["answers"], second_call["cut"], spec.max_new_tokens)


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


def run_answers(spec: Any, model_dir: Path, adapter_dir: Path | None, prompts: list[list[int]]) -> dict[str, Any]:
    """Two calls of the engine: many prompts and few tokens, some prompts to the end of their answers; after each pass, its phases."""
    import torch

    from campana.data.templates import load_template
    from campana.generation.engine import Greedy, Phases, Request
    from campana.generation.meter import peak_memory_bytes
    from campana.models.load import load_model, load_tokenizer

    start = time.perf_counter()
    template = load_template(spec.template, load_tokenizer(model_dir))
    other = time.perf_counter() - start
    start = time.perf_counter()
    model = load_model(model_dir, precision=spec.precision)
    load = time.perf_counter() - start
    ends: Any = getattr(model.generation_config, "eos_token_id", None)
    stops = template.stop_ids | frozenset([ends] if isinstance(ends, int) else ends or ())
    calls: list[dict[str, Any]] = []
    plans = ((FULL_ROWS, min(FIRST_NEW, spec.max_new_tokens), frozenset[int]()), (FEW_ROWS, min(SECOND_NEW, spec.max_new_tokens), stops))
    for count, most, stop_ids in plans:
        chosen = [prompts[k * len(prompts) // min(count, len(prompts))] for k in range(min(count, len(prompts)))]
        requests = [Request(f"{number:06}", tuple(ids)) for number, ids in enumerate(chosen)]
        phases, told = Phases(), list[list[float]]()

        def tell(_: int, phases: Phases = phases, told: list[list[float]] = told) -> None:
            told.append([phases.prefill_seconds, phases.decode_seconds])

        lengths = dict.fromkeys((request.id for request in requests), 0)
        cut = set[str]()
        for done in spec.engine.complete(model, requests, Greedy(), most, stop_ids, tell, phases):
            lengths[done.id] = len(done.token_ids) + (done.finish == "stop")
            cut |= {done.id} if done.finish == "length" else set()
        calls.append(
            {
                "cut": [name in cut for name in lengths],
                "prompts": [len(ids) for ids in chosen],
                "answers": list(lengths.values()),
                "told": told,
            }
        )
    peak = peak_memory_bytes()
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
        "load_seconds": load,
        "adapted_load_seconds": adapted,
        "other_seconds": other,
        "memory_byte_seconds": (time.perf_counter() - start) / (2 * moved.numel() * 4),
        "peak_memory_bytes": peak,
    }
