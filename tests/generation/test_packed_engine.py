"""The packed engine: transformers' answers, and an answer that no neighbour moves by a bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from campana.errors import ModelError
from campana.forecast.answers import answering_passes
from campana.generation import invariance, lean
from campana.generation.engine import Completion, Engine, Greedy, Phases, Request, Sample
from campana.generation.engines.packed import Packed
from campana.generation.engines.reference import Transformers
from campana.generation.kv import PAGE, SLAB, Pages, Row, Shelf
from campana.generation.loop import is_paged
from campana.generation.passes import open_rows, read_prompts, read_step
from campana.generation.schedule import WORTHWHILE
from campana.native.compiled import Compiled

FAMILIES = ("llama", "qwen2", "qwen3", "phi3", "gemma2", "gemma3")
COMPILED = ("bf16, compiled", "fp32, compiled")
Run = Callable[..., dict[str, Completion]]
Models = Callable[[str], Any]


def generated(model: Any, request: Request, max_new: int, stops: frozenset[int]) -> Completion:
    """What transformers' own `generate` says, one prompt at a time."""
    ids = torch.tensor([request.prompt_ids])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new, do_sample=False, eos_token_id=sorted(stops))
    new = out[0, ids.shape[1] :].tolist()
    return Completion(request.id, tuple(new[:-1]), "stop") if new[-1] in stops else Completion(request.id, tuple(new), "length")


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_are_those_of_transformers_generate(
    family: str, models: Models, requests: list[Request], run: Run, compiled_fp32: Compiled
) -> None:
    model, asked = models(family), requests[:12]
    stops = frozenset(range(60))
    expected = {request.id: generated(model, request, 16, stops) for request in asked}
    assert {completion.finish for completion in expected.values()} == {"stop", "length"}, "the test needs both ends"
    assert run(Packed(), model, asked, Greedy()) == expected
    assert run(Packed(), model, asked, Greedy(), compiled=compiled_fp32) == expected
    assert run(Transformers(batch_size=5), model, asked, Greedy()) == expected


@pytest.mark.parametrize("sampling", [Greedy(), Sample(seed=3, temperature=1.3, top_p=0.95)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("form", ["fp32", "bf16", *COMPILED])
def test_a_completion_does_not_depend_on_the_others(
    family: str, form: str, sampling: Greedy | Sample, models: Models, requests: list[Request], run: Run, request: pytest.FixtureRequest
) -> None:
    model, compiled = made(form, family, models, request)
    everything = run(Packed(), model, requests, sampling, compiled=compiled)

    @settings(deadline=None, max_examples=4)
    @given(st.sets(st.sampled_from(range(len(requests))), min_size=1), st.integers(1, 70), st.integers(1, 300))
    @example({9}, 1, 1)  # so small a product that torch would take another kernel for it
    def law(chosen: set[int], max_rows: int, prefill_tokens: int) -> None:
        some = [requests[place] for place in sorted(chosen)]
        found = run(Packed(max_rows=max_rows, prefill_tokens=prefill_tokens), model, some, sampling, compiled=compiled)
        assert found == {request.id: everything[request.id] for request in some}

    law()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["fp32", "bf16", *COMPILED])
def test_logits_are_the_same_bits_alone_and_among_others(
    family: str, form: str, models: Models, requests: list[Request], request: pytest.FixtureRequest
) -> None:
    def logits(forward: lean.Lent, asked: list[Request], steps: int) -> dict[str, list[torch.Tensor]]:
        kept, found = open_rows(forward), {request.id: list[torch.Tensor]() for request in asked}
        rows = [Row(request, len(request.prompt_ids)) for request in asked]
        for row in rows:
            kept.put(row)
        order, out = rows, read_prompts(forward, rows, kept)
        for _ in range(steps):
            for place, row in enumerate(order):
                found[row.request.id].append(out[place].clone())
                row.token_ids.append(int(out[place].argmax()))
            out, order = read_step(forward, kept), kept.rows
        return found

    with lean.lent(*made(form, family, models, request)) as forward:
        together = logits(forward, requests, 8)
        for asked in requests[::7]:
            alone = logits(forward, [asked], 8)[asked.id]
            assert all(torch.equal(one, other) for one, other in zip(alone, together[asked.id], strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_shared", [1, 15, 40, 66])
@pytest.mark.parametrize("form", COMPILED)
def test_what_prompts_begin_with_is_read_once_and_moves_no_bit(
    family: str, form: str, num_shared: int, models: Models, requests: list[Request], run: Run, request: pytest.FixtureRequest
) -> None:
    model, compiled = made(form, family, models, request)
    beginning = tuple(range(100, 100 + num_shared))
    asked = [Request(each.id, beginning + each.prompt_ids) for each in requests]
    copies = range(-(-WORTHWHILE // (num_shared * (len(asked) - 1))))
    many = [Request(f"{each.id}/{k}", each.prompt_ids) for k in copies for each in asked]
    together = run(Packed(), model, many, Greedy(), compiled=compiled)
    for each in many[::9]:
        assert run(Packed(), model, [each], Greedy(), compiled=compiled)[each.id] == together[each.id]
    shared = sorted(each.num_shared for each in together.values())
    expected = 0 if family == "gemma2" else num_shared  # a soft-cap: its attention is not compiled
    assert shared == [0, *[expected] * (len(many) - 1)]


@pytest.mark.parametrize("form", COMPILED)
def test_forecasts_count_prompts_without_what_they_share(
    form: str, models: Models, requests: list[Request], request: pytest.FixtureRequest
) -> None:
    asked = [Request(f"{number:02}", (*range(100, 120), *each.prompt_ids)) for number, each in enumerate(requests)]
    engine, told, phases = Packed(max_rows=8, prefill_tokens=90), list[int](), Phases()
    model, compiled = made(form, "llama", models, request)
    done = list(engine.complete(model, asked, Greedy(), 16, frozenset(range(60)), told.append, phases, compiled))
    assert sum(each.num_shared for each in done) == 20 * (len(asked) - 1)
    new = {each.id: len(each.token_ids) + (each.finish == "stop") for each in done}
    own = [len(each.prompt_ids) - 20 for each in asked]
    passes = answering_passes(own, [new[each.id] for each in asked], max_rows=8, prefill_tokens=90, paged=True)
    assert [each.read_rows + each.rows for each in passes.passes] == told
    assert passes.peak_places % (PAGE * SLAB) == 0
    assert passes.peak_places >= max(each.places for each in passes.passes)
    assert is_paged(model, compiled)
    assert not is_paged(model, None)


def test_heads_that_only_prompts_have_compiled_code_for_keep_their_keys_on_a_shelf(
    models: Models, requests: list[Request], run: Run, compiled: Compiled
) -> None:
    model = copy.deepcopy(models("llama")).bfloat16()  # heads of 16
    with lean.lent(model, compiled) as forward:
        assert isinstance(open_rows(forward, range(100, 110)), Shelf)
    asked = [Request(each.id, (*range(100, 110), *each.prompt_ids)) for each in requests]
    together = run(Packed(), model, asked, Greedy(), compiled=compiled)
    assert {each.num_shared for each in together.values()} == {0}
    for each in asked[::6]:
        assert run(Packed(), model, [each], Greedy(), compiled=compiled)[each.id] == together[each.id]


def test_nothing_is_shared_where_torch_computes_attention(models: Models, requests: list[Request], run: Run) -> None:
    asked = [Request(each.id, (*range(100, 110), *each.prompt_ids)) for each in requests]
    assert {each.num_shared for each in run(Packed(), models("llama"), asked, Greedy()).values()} == {0}


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled_logits_are_as_near_to_fp32_as_torchs(family: str, models: Models, requests: list[Request], compiled: Compiled) -> None:
    exact = models(f"{family}, heads of 32")
    rows = [Row(each, len(each.prompt_ids)) for each in requests]
    with torch.no_grad():
        wanted = torch.stack([exact(input_ids=torch.tensor([[*each.prompt_ids, 7]])).logits[0, -1] for each in requests])
    distances: list[float] = []
    for by in (None, compiled):
        with lean.lent(copy.deepcopy(exact).bfloat16(), by) as forward:
            kept = open_rows(forward)
            assert isinstance(kept, Pages) is (by is not None and family != "gemma2"), "a soft-cap is not compiled"
            for row in rows:
                row.length, row.token_ids = len(row.request.prompt_ids), [7]
                kept.put(row)
            read_prompts(forward, rows, kept)
            order = [rows.index(row) for row in kept.rows]
            found = read_step(forward, kept)[: len(rows)].float()
        distances.append(float((found - wanted[order]).norm() / wanted.norm()))
    assert distances[0] < 0.1
    assert distances[1] < 1.1 * distances[0]


def made(form: str, family: str, models: Models, request: pytest.FixtureRequest) -> tuple[Any, Compiled | None]:
    """A model of the form's type, and what it is computed with."""
    if form == "fp32, compiled":
        return models(family), request.getfixturevalue("compiled_fp32")
    if form == "bf16, compiled":
        return copy.deepcopy(models(f"{family}, heads of 32")).bfloat16(), request.getfixturevalue("compiled")
    return copy.deepcopy(models(family)).to(torch.bfloat16 if form == "bf16" else torch.float32), None


@pytest.mark.parametrize(("allowed", "tried"), [("one order", 2), ("blocks", 3)])
def test_products_in_one_order_or_in_blocks_give_the_same_answers(
    allowed: str, tried: int, models: Models, requests: list[Request], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariance, "LONG", 96)
    model, asked = models("qwen2"), [Request(f"{each.id}/{k}", each.prompt_ids) for each in requests for k in range(4)]
    linear, by_rows = torch.nn.functional.linear, list[int]()
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, *others: by_rows.append(len(x)) or linear(x, *others))
    with monkeypatch.context() as patch:
        patch.setattr(invariance, "rows_are_independent", lambda *_: True)
        whole = run(Packed(), model, asked, Greedy())
    assert sum(rows >= 96 for rows in by_rows) > 20, "prompts were not read in the other order"
    ways: list[tuple[int | None, int | None]] = []

    def only(forward: lean.Lent, sizes: Sequence[int]) -> bool:
        ways.append((forward.long_rows, forward.block_rows))
        assert max(sizes) >= 96
        return forward.long_rows is None and (allowed == "one order" or forward.block_rows is not None)

    monkeypatch.setattr(invariance, "rows_are_independent", only)
    assert run(Packed(), model, asked, Greedy()) == whole
    assert ways == [(96, None), (None, None), (None, lean.QUANTUM)][:tried]


def test_with_thread_counts_that_split_vectors_rows_are_still_independent() -> None:
    """Three threads share 4,864 x 32 elements at places that are not whole vectors: then two threads compute."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"vocab_size": 100, "hidden_size": 64, "intermediate_size": 4864, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=2)).eval()
    before = torch.get_num_threads()
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            with lean.lent(model) as forward:
                invariance.settle(forward, longest_pass=128, most_rows=128)
                assert invariance.elements_are_independent(forward, [32, 64, 96, 128, 160], [])
                assert forward.num_threads <= num_threads
                assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)


def test_a_machine_whose_rows_depend_on_their_place_is_refused(
    models: Models, requests: list[Request], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_place(_forward: lean.Lent, module: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, module.weight, module.bias) + torch.arange(len(x))[:, None] * 1e-6

    monkeypatch.setattr(lean.Lent, "_product", by_place)
    with pytest.raises(ModelError, match="depends on its place"):
        run(Packed(), models("llama"), requests[:3], Greedy())


def test_an_engine_that_computes_another_model_is_refused(
    models: Models, requests: list[Request], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean.Lent, "_product", lambda _, module, x: torch.nn.functional.linear(x, module.weight * 1.01, module.bias))
    with pytest.raises(ModelError, match="as transformers does"):
        run(Packed(), models("llama"), requests[:3], Greedy())


def test_the_model_is_given_back_as_it_was(models: Models, requests: list[Request]) -> None:
    model = models("llama")
    before = model.config._attn_implementation
    some = Packed().complete(model, requests[:4], Greedy(), 24, frozenset(), lambda count: None)
    next(some)
    assert model.config._attn_implementation != before
    some.close()  # type: ignore[attr-defined]  # a generator, abandoned before its end
    assert model.config._attn_implementation == before
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_model_with_attention_of_its_own_is_refused(requests: list[Request], run: Run) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=2500, hidden_size=32, n_layer=1, n_head=2)).eval()
    with pytest.raises(ModelError, match="attention") as caught:
        run(Packed(), model, requests[:2], Greedy())
    assert "transformers" in str(caught.value.hint)
    assert len(run(Transformers(), model, requests[:2], Greedy(), 3)) == 2


@pytest.mark.parametrize("engine", [Packed(), Transformers(batch_size=3)], ids=["packed", "transformers"])
def test_ends_and_phases(engine: Engine, models: Models, requests: list[Request], run: Run) -> None:
    model, phases = models("llama"), Phases()
    short = run(engine, model, requests[:5], Greedy(), 1, stops=frozenset(), phases=phases)
    assert all(completion.finish == "length" and len(completion.token_ids) == 1 for completion in short.values())
    assert phases.prefill_seconds > 0
    first = short["q0#0"].token_ids[0]
    stopped = run(engine, model, requests[:1], Greedy(), 1, stops=frozenset({first}))
    assert stopped["q0#0"] == Completion("q0#0", (), "stop"), "a stop at the last token allowed is a stop"
    assert run(engine, model, [], Greedy()) == {}


def test_seeds_draw_apart_and_requests_too(models: Models, requests: list[Request], run: Run) -> None:
    model, asked = models("llama"), [Request(f"same{n}#0", requests[3].prompt_ids) for n in range(6)]
    one, other = (run(Packed(), model, asked, Sample(seed=seed, temperature=3.0), stops=frozenset()) for seed in (0, 1))
    assert len({completion.token_ids for completion in (*one.values(), *other.values())}) == 12


def test_fields_that_move_no_token_are_not_in_the_key() -> None:
    assert Packed(max_rows=3, prefill_tokens=9).identity() == Packed().identity()
    assert Transformers(batch_size=3).identity() != Transformers().identity()
    assert (Packed().group_size, Transformers(batch_size=3).group_size) == (None, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_softmax_of_short_numbers_is_that_of_fp32_rounded_once(dtype: torch.dtype) -> None:
    """transformers asks for fp32 by name; attention here relies on torch's own."""
    scores = torch.randn(48, 3, 192).to(dtype) * 4
    scores[:, :, 150:] = float("-inf")
    assert torch.equal(scores.softmax(-1), scores.softmax(-1, dtype=torch.float32).to(dtype))


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_positions_that_follow_the_longest_of_a_pass_are_refused(kind: str, run: Run) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    rotary = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    if kind == "longrope":
        rotary |= {"short_factor": [1.0] * 8, "long_factor": [6.0] * 8, "original_max_position_embeddings": 64}
    sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(**sizes, max_position_embeddings=256 if kind == "longrope" else 64, rope_parameters=rotary)
    model = LlamaForCausalLM(config).eval()
    short, long = (Request(name, tuple(range(3, 3 + length))) for name, length in (("short", 30), ("long", 60)))
    assert run(Packed(), model, [short], Greedy())
    with pytest.raises(ModelError, match=rf"above 64, .*\({kind}\) follow the longest"):
        run(Packed(), model, [short, long], Greedy())
