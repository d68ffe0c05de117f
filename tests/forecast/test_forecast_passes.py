"""The planner counts the very passes that the trainer and the engines make."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.forecast.answers import answering_passes, batched_passes
from campana.forecast.packs import MOST_STEPS, RowLengths, training_passes
from campana.generation import loop
from campana.generation.engine import Greedy, Phases, Request
from campana.generation.engines.packed import Packed
from campana.generation.engines.reference import Transformers
from campana.generation.invariance import prove
from campana.generation.kv import Bucket


class MadeRows:
    """Prepared rows without a file."""

    def __init__(self, sizes: list[tuple[int, int, int]]) -> None:
        self._rows = [(np.arange(n, dtype=np.int32), _mask(n, start, end)) for n, start, end in sizes]
        self.lengths = np.asarray([len(ids) for ids, _ in self._rows], np.int64)
        self.num_supervised = np.asarray([mask.sum() for _, mask in self._rows], np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Any:
        return self._rows[index]


def _mask(length: int, start: int, end: int) -> Any:
    first = 1 + start % (length - 1)
    mask = np.zeros(length, bool)
    mask[first : max(first + 1, min(length, end))] = True
    return mask


ROWS = st.lists(st.tuples(st.integers(2, 90), st.integers(0, 90), st.integers(2, 90)), min_size=1, max_size=30).map(MadeRows)


@given(rows=ROWS, batch=st.integers(8, 200), micro=st.integers(8, 200), epochs=st.sampled_from([0.5, 1.0, 2.3]), alone=st.booleans())
@settings(deadline=None, max_examples=40)
def test_training_passes_are_the_trainers(rows: Any, batch: int, micro: int, epochs: float, alone: bool) -> None:
    from campana.tuning.job import plan_of
    from campana.tuning.packs import packs_of

    job: Any = SimpleNamespace(batch_tokens=batch, epochs=epochs, seed=3, budget=0.7, num_evaluations=3)
    plan = plan_of(job, rows)
    lengths = RowLengths.of(rows)
    passes = training_passes(
        lengths,
        lengths,
        batch_tokens=batch,
        micro_batch_tokens=micro,
        epochs=epochs,
        budget=0.7,
        num_evaluations=3,
        seed=3,
        alone=alone,
        most_steps=10**6,
    )
    made = [pack for step in plan.steps for pack in packs_of([rows.row(i) for i in step], micro, alone=alone)]
    assert [(each.tokens, each.supervised, each.squares) for each in passes.packs] == [
        (pack.segments.num_tokens, pack.targets.numel(), sum(n * n for n in pack.segments.lengths)) for pack in made
    ]
    assert (passes.num_steps, passes.total_tokens, passes.scale) == (len(plan.steps), plan.total_tokens, 1.0)
    assert passes.num_evaluations == len(plan.evaluate_after)
    assert sum(each.opens_step for each in passes.packs) == len(plan.steps)


def test_a_long_run_is_scaled_from_its_first_steps() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 200, 4000)
    rows = RowLengths(sizes, sizes - 1, sizes // 2)
    settings_of: dict[str, Any] = {
        "batch_tokens": 2048,
        "micro_batch_tokens": 512,
        "epochs": 2.0,
        "budget": 1.0,
        "num_evaluations": 4,
        "seed": 0,
    }
    whole = training_passes(rows, rows, **settings_of, most_steps=10**6)
    some = training_passes(rows, rows, **settings_of)
    assert sum(each.opens_step for each in some.packs) == MOST_STEPS < whole.num_steps == some.num_steps
    for name in ("tokens", "squares", "supervised"):
        wanted = sum(getattr(each, name) for each in whole.packs)
        assert sum(getattr(each, name) for each in some.packs) * some.scale == pytest.approx(wanted, rel=0.02)


@pytest.fixture(scope="module")
def model(toy: Path) -> Any:
    from campana.models.load import load_model

    found = load_model(toy / "model")
    for parameter in found.parameters():  # answers then depend on the prompt, and end at uneven lengths
        parameter.data *= 3
    return found


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Places of all slots with memory, at each use of the first layer's keys and values; without the engine's proof before its work."""
    found: list[int] = []
    alive: WeakSet[Bucket] = WeakSet()
    opened = Bucket.open

    def watched(self: Bucket, layer: int, *sizes: Any) -> Any:
        kept = opened(self, layer, *sizes)
        if layer == 0:
            alive.add(self)
            found.append(sum(bucket.capacity * bucket._kept[0].num_used for bucket in alive))
        return kept

    def prove_first(*arguments: Any) -> None:
        prove(*arguments)
        assert not alive, "the keys of the proof are gone with it"
        found.clear()

    monkeypatch.setattr(Bucket, "open", watched)
    monkeypatch.setattr(loop, "prove", prove_first)
    return found


@pytest.mark.parametrize("engine", [Packed(max_rows=8, prefill_tokens=60), Packed(max_rows=128), Transformers(batch_size=4)], ids=str)
def test_answering_passes_are_the_engines(model: Any, engine: Any, touched: list[int]) -> None:
    rng = np.random.default_rng(1)
    requests = [Request(f"q{k:03}", tuple(rng.integers(60, 250, rng.integers(1, 80)).tolist())) for k in range(93)]
    phases, told = Phases(), list[int]()
    done = list(engine.complete(model, requests, Greedy(), 12, frozenset(range(100)), told.append, phases))
    answers = {each.id: len(each.token_ids) + (each.finish == "stop") for each in done}
    assert len(set(answers.values())) > 2, "uneven answers"
    prompts, lengths = [len(each.prompt_ids) for each in requests], [answers[each.id] for each in requests]
    if isinstance(engine, Packed):
        passes = answering_passes(prompts, lengths, max_rows=engine.max_rows, prefill_tokens=engine.prefill_tokens)
        assert [each.read_rows + each.rows for each in passes.passes] == told
        assert sum(each.read_tokens for each in passes.passes) == sum(prompts)
        assert max(each.rows for each in passes.passes) == passes.max_rows <= engine.max_rows
        assert passes.peak_places >= max(each.places for each in passes.passes)
        most = max(touched)
        assert 0.9 * most <= passes.peak_places <= 1.1 * most, "places that the engine's buckets had memory for"
    else:
        passes = batched_passes(prompts, lengths, batch_size=engine.batch_size)
        assert len(passes.passes) == len(told)


def test_many_prompts_are_scaled_from_a_sample() -> None:
    rng = np.random.default_rng(2)
    prompts, answers = rng.integers(5, 60, 3000).tolist(), rng.integers(1, 40, 3000).tolist()
    whole = answering_passes(prompts, answers, max_rows=64, prefill_tokens=512, most=10**6)
    some = answering_passes(prompts, answers, max_rows=64, prefill_tokens=512)
    assert whole.scale == 1.0
    assert sum(each.rows for each in some.passes) * some.scale == pytest.approx(sum(each.rows for each in whole.passes), rel=0.05)
