"""Training of readers: what steps draw, what is minimised, and that a killed run takes the same steps."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_readers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_questions import WHOLE, ignore, world

from campana.errors import DataError
from campana.reading.examples import Example, Span
from campana.reading.layout import Layout
from campana.reading.settings import Settings
from campana.reading.training.dropout import ByteDropout, Noise, replace_dropout
from campana.reading.training.job import ReadTrainJob, train_reader
from campana.reading.training.network import Network
from campana.reading.training.objective import Outputs, StepRows
from campana.reading.training.objectives.cross_entropy import CrossEntropy
from campana.reading.training.objectives.rdrop import RDrop, symmetric_kl
from campana.reading.training.objectives.spancl import SpanCL, info_nce
from campana.reading.training.plan import passes, plan_steps
from campana.reading.training.questions import NULL, TrainingTable, augmented
from campana.reading.triples import Counterpart, Family, written_families


def table_of(examples: Sequence[Example], families: Sequence[Family] = (), settings: Settings = WHOLE) -> TrainingTable:
    return TrainingTable.build(examples, families, Layout.of(tiny_readers.word_pieces()), settings)


def network_of(table: TrainingTable, seed: int = 0, dropout: float = 0.0, precision: Any = "fp32") -> Network:
    return Network.of(tiny_readers.tiny_bert(seed), table, precision=precision, dropout=dropout, seed=seed)


# What steps draw


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=80),
    batch_tokens=st.integers(10, 200),
    num_steps=st.integers(1, 60),
    seed=st.integers(0, 5),
)
def test_steps_are_whole_epochs_within_the_token_budget(lengths: list[int], batch_tokens: int, num_steps: int, seed: int) -> None:
    units = np.arange(len(lengths)) * 3
    widths = np.zeros(3 * len(lengths), dtype=np.int64)
    widths[units] = lengths
    steps = plan_steps(units, widths, batch_tokens, num_steps, seed)
    assert len(steps) == num_steps
    assert all(len(step) == 1 or widths[step].sum() <= batch_tokens for step in steps)
    seen = Counter(int(window) for step in steps for window in step)
    assert max(seen.values()) - min(seen.get(int(unit), 0) for unit in units) <= 1
    again = plan_steps(units, widths, batch_tokens, num_steps + 5, seed)
    assert all(np.array_equal(one, other) for one, other in zip(steps, again, strict=False)), "a longer run begins with the shorter one"


@given(
    st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 400),
    st.integers(1, 12),
    st.integers(0, 9),
)
@settings(deadline=None)
def test_balanced_steps_draw_as_many_of_each_kind(rows: list[tuple[int, bool]], batch_tokens: int, num_steps: int, seed: int) -> None:
    lengths, kind = (np.array(column) for column in zip(*rows, strict=True))
    units = np.arange(len(rows))
    steps = plan_steps(units, lengths, batch_tokens, num_steps, seed, kind)
    assert len(steps) == num_steps
    few = min(int(kind.sum()), int((~kind).sum()))
    epoch = 2 * few if few else len(rows)
    drawn = np.concatenate(steps)
    for start in range(0, len(drawn) - epoch + 1, epoch):
        part = drawn[start : start + epoch]
        assert len(set(part)) == epoch
        assert not few or int(kind[part].sum()) == few


def test_another_seed_is_another_order() -> None:
    units, lengths = np.arange(50), np.full(50, 10)
    first, second = (np.concatenate(plan_steps(units, lengths, 100, 5, seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)
    assert sorted(first) == sorted(second) == list(range(50))


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), most=st.integers(1, 200))
def test_passes_hold_every_row_once(lengths: list[int], most: int) -> None:
    found = passes(lengths, most)
    assert sorted(int(row) for part in found for row in part) == list(range(len(lengths)))
    assert all(len(part) == 1 or len(part) * max(lengths[row] for row in part) <= most for part in found)


# Targets


def text_of(table: TrainingTable, window: int, first: int, last: int) -> str:
    group = table.group
    example = int(group.of_example[window])
    at = int(group.collate(np.array([window])).passage_at[0])
    passage, shift = group.passages[example], int(group.first[window]) - at
    return group.examples[example].passage[passage.starts[first + shift] : passage.ends[last + shift]]


def test_targets_are_the_answer_in_each_window_and_spans_that_of_each_view() -> None:
    examples, families = world()
    table = table_of(examples, families)
    assert len(table.own) == len(examples)
    assert not table.problems.counts
    for window in table.own:
        example = table.group.examples[int(table.group.of_example[window])]
        told = (example.spans or example.plausible)[0].of(example.passage)
        assert text_of(table, int(window), int(table.span_first[window]), int(table.span_last[window])) == told
        assert (table.target_first[window] == NULL) == (not example.answerable)
    assert len(table.triples) == len(families)
    for window, triple in table.triples.items():
        views = (window, *triple.positives, *triple.negatives)
        assert len({text_of(table, view, int(table.span_first[view]), int(table.span_last[view])) for view in views}) == 1
        assert len({int(table.span_first[view]) for view in views}) > 1, "questions of other lengths put the passage elsewhere"


def test_a_long_passage_has_one_window_with_the_answer_and_the_others_say_none() -> None:
    passage = "Rome is the capital of Italy . " * 12 + "Anna went to Paris in 2001 . " + "Ben went to Rome in 1998 . " * 12
    at = passage.index("2001")
    example = Example("q", "when was Anna in Paris ?", passage, "d", True, ("2001",), (Span(at, at + 4),))
    table = table_of([example], settings=Settings(max_length=48, overlap=16))
    holding = [int(window) for window in table.own if table.target_first[window] != NULL]
    assert len(holding) == 1
    assert text_of(table, holding[0], int(table.target_first[holding[0]]), int(table.target_last[holding[0]])) == "2001"
    assert list(table.units("answerable")) == holding
    left_out = len(table.group.of_example) - len(table.own)
    assert table.problems.counts["window with a part of the answer (not trained on)"] == left_out


def test_a_triple_that_loses_its_span_in_one_view_is_dropped_and_counted() -> None:
    passage = "Rome is the capital of Italy . Anna went to Paris in 2001 ."
    at = passage.index("2001")
    span = Span(at, at + 4)
    across = Span(0, len(passage))  # longer than a window: no window holds it
    families = [
        Family("q", "d", passage, "when was Anna in Paris ?", span, (Counterpart("q#n", "when ?", False, across, "entity"),)),
        Family("absent", "d", passage, "?", span, (Counterpart("absent#n", "when ?", False, span, "entity"),)),
    ]
    table = table_of([families[0].original()], families, Settings(max_length=16, overlap=4))
    assert not table.triples
    assert table.problems.counts["triple without its span in one view (dropped)"] == 1
    assert table.problems.counts["counterparts of a question that is not trained on"] == 1


def test_questions_that_say_nothing_of_an_answer_are_counted_and_none_left_is_an_error() -> None:
    table = table_of([Example("q", "when ?", "Anna went to Rome .", "d")])
    assert table.problems.counts == {"not known where the answer is (not trained on)": 1}
    with pytest.raises(DataError, match="nothing to learn from"):
        table.units("all")


def test_pairs_that_people_wrote_become_families_and_augmentation_adds_what_is_used() -> None:
    examples, families = world()
    others = families[0].counterparts
    rejected = replace(others[1], id="rejected", verdict="still answerable")
    told = replace(families[0], counterparts=(*others, rejected))
    assert [example.id for example in augmented(examples, [told])] == [e.id for e in examples] + [other.id for other in others]
    assert [family.id for family in written_families(examples)] == [family.id for family in families]


# What is minimised


def test_rows_do_not_depend_on_the_others_of_their_step() -> None:
    examples, families = world()
    table = table_of(examples, families)
    network = network_of(table)
    windows = [int(window) for window in table.own[:7]]
    together = network.read(StepRows(tuple(windows)), vectors=True)
    for place, window in enumerate(windows):
        alone = network.read(StepRows((window,)), vectors=True)
        length = int(table.lengths[window])
        assert torch.allclose(together.start_RL[place, :length], alone.start_RL[0], atol=1e-5)
        assert torch.allclose(together.end_RL[place, :length], alone.end_RL[0], atol=1e-5)
        assert together.span_RD is not None
        assert alone.span_RD is not None
        assert torch.allclose(together.span_RD[place], alone.span_RD[0], atol=1e-5)
        assert torch.equal(together.target_R2[place], alone.target_R2[0])


def test_span_vectors_are_the_hidden_states_at_the_span() -> None:
    examples, families = world()
    table = table_of(examples, families)
    network = network_of(table)
    window = int(table.own[0])
    batch = table.group.collate(np.array([window]))
    hidden = network.model.base_model(
        input_ids=torch.from_numpy(batch.input_ids),
        attention_mask=torch.from_numpy(batch.attention_mask),
        token_type_ids=torch.from_numpy(batch.token_type_ids),
    ).last_hidden_state[0]
    found = network.read(StepRows((window,)), vectors=True).span_RD
    expected = torch.cat([hidden[int(table.span_first[window])], hidden[int(table.span_last[window])]])
    assert found is not None
    assert torch.allclose(found[0], expected, atol=1e-6)


def outputs_of(start: torch.Tensor, end: torch.Tensor, target: list[list[int]], vectors: torch.Tensor | None = None) -> Outputs:
    return Outputs(start, end, torch.tensor(target), vectors)


def test_cross_entropy_is_the_mean_log_probability_of_both_ends() -> None:
    start, end = torch.randn(3, 5), torch.randn(3, 5)
    target = [[0, 0], [2, 3], [4, 4]]
    loss, figures = CrossEntropy().loss(outputs_of(start, end, target), StepRows((0, 1, 2)), None)
    by_hand = [
        -math.log(math.exp(logits[row, target[row][side]]) / sum(math.exp(value) for value in logits[row]))
        for side, logits in enumerate((start, end))
        for row in range(3)
    ]
    assert loss.item() == pytest.approx(sum(by_hand) / 6, rel=1e-5)
    assert figures == {"cross_entropy": loss.item()}


def test_rdrop_adds_the_symmetric_divergence_of_two_views() -> None:
    p, q = torch.tensor([[0.2, 0.3, 0.5]]), torch.tensor([[0.5, 0.25, 0.25]])
    expected = sum(float(a * (a / b).log() + b * (b / a).log()) for a, b in zip(p[0], q[0], strict=True)) / 2
    assert symmetric_kl(p.log(), q.log()).item() == pytest.approx(expected, rel=1e-5)
    objective = RDrop(weight=2.0)
    rows = objective.rows([7], {}, np.random.default_rng(0))
    assert rows.windows == (7, 7)
    both = torch.cat([p.log(), q.log()])
    loss, figures = objective.loss(outputs_of(both, both, [[0, 0], [0, 0]]), rows, None)
    assert figures["divergence"] == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx(figures["cross_entropy"] + 2 * expected, rel=1e-5)


def test_the_contrast_is_infonce_over_cosines() -> None:
    anchor, positive, negative = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4)

    def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
        return float(one @ other / one.norm() / other.norm())

    for in_batch in (True, False):
        expected = 0.0
        for row in range(3):
            others = range(3) if in_batch else (row,)
            pool = [cosine(anchor[row], side[other]) / 0.2 for side in (positive, negative) for other in others]
            expected -= cosine(anchor[row], positive[row]) / 0.2 - math.log(sum(map(math.exp, pool)))
        loss, near, far = info_nce(anchor, positive, negative, 0.2, in_batch=in_batch)
        assert loss.item() == pytest.approx(expected / 3, rel=1e-4)
        assert near.tolist() == pytest.approx([cosine(anchor[row], positive[row]) for row in range(3)], abs=1e-5)
        assert far.tolist() == pytest.approx([cosine(anchor[row], negative[row]) for row in range(3)], abs=1e-5)


@pytest.mark.parametrize("positive", ["counterpart", "dropout"])
def test_spancl_reads_a_positive_and_a_negative_of_each_question_that_has_them(positive: Any) -> None:
    examples, families = world()
    table = table_of(examples, families)
    windows = [int(window) for window in table.own[:4]]
    rows = SpanCL(positive=positive).rows(windows, table.triples, np.random.default_rng(0))
    assert rows.windows[:4] == tuple(windows)
    assert len(rows.triples) == 2, "two of the four have no answer"
    for anchor, near, far in rows.triples:
        triple = table.triples[rows.windows[anchor]]
        assert rows.windows[near] in (triple.positives if positive == "counterpart" else (rows.windows[anchor],))
        assert rows.windows[far] in triple.negatives


def test_spancl_moves_span_vectors_apart_where_cross_entropy_alone_does_not_have_to(job: Callable[..., ReadTrainJob]) -> None:
    def last_gap(name: str, weight: float) -> float:
        made = job(name, objective=SpanCL(weight=weight), plain_steps=0, steps=30, dropout=0.0, learning_rate=1e-3)
        train_reader(made, ignore)
        rows = [json.loads(line) for line in (made.out_dir / "metrics.jsonl").read_text().splitlines()]
        trained = [row for row in rows if "similarity_positive" in row]
        assert all(row["triples"] > 0 for row in trained)
        return trained[-1]["similarity_positive"] - trained[-1]["similarity_negative"]

    assert last_gap("contrast", 1.0) > last_gap("none", 0.0) + 0.1


# Dropout


def test_dropout_has_its_rate_and_follows_from_seed_and_step() -> None:
    noise = Noise(3)
    layer = ByteDropout(0.1, noise).train()
    values = torch.ones(200, 500)
    noise.at(5)
    first = layer(values)
    noise.at(5)
    assert torch.equal(layer(values), first)
    assert not torch.equal(layer(values), first)
    assert (first == 0).float().mean().item() == pytest.approx(26 / 256, abs=0.003)
    assert first.mean().item() == pytest.approx(1.0, abs=0.004)
    assert torch.equal(layer.eval()(values), values)


def test_all_dropout_of_a_model_is_replaced() -> None:
    model = tiny_readers.tiny_bert(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    replace_dropout(model, 0.25, Noise(0))
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.0}
    assert {module.dropped for module in model.modules() if isinstance(module, ByteDropout)} == {64}


@pytest.mark.parametrize(
    ("kind", "of_weights"), [("MPNet", "attn.dropout"), ("Albert", "attention_dropout"), ("Bert", "attention.self.dropout")]
)
def test_only_dropout_of_attention_weights_is_turned_off(kind: str, of_weights: str) -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(vocab_size=50, **sizes))
    replace_dropout(model, 0.25, Noise(0))
    off = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout) and module.p == 0.0]
    on = [name for name, module in model.named_modules() if isinstance(module, ByteDropout)]
    assert [name.endswith(of_weights) for name in off] == [True]
    assert len(on) == 3
