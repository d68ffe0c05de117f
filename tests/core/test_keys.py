"""Keys depend on what can move a number, all of it and nothing else; differences name it."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_kinds import Grow, Nested
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.core.graph import by_key, descendants, in_order, topological
from campana.core.keys import ABSENT, Difference, differences, key_of, recipe, recipes_of
from campana.core.spec import Resources, Source, Stage
from campana.errors import StudyError

GOLDEN = {
    "plain": "7fdf6103b76982aa63b07baa393bd36338ccf0550736ce1f33e880c9903e03d5",
    "source": "ece7cc6980a8fefdc8c2ed09d811180a78e66ec017efd57f959686a81c70dc32",
    "deep": "57a6d5a4b19549318b28cef31a075a837bdccdc250f895afd6b02e1a943ee476",
}


def golden_stages() -> dict[str, Stage]:
    """Known stages, whose keys may never move."""
    source = Stage(Grow(text="a"), {"data": Source("sha256:" + "0" * 64, Path("here.jsonl"))}, label="source")
    deep = Stage(Grow(text="b", rate=1e-4, nested=Nested(rank=16), options={"y": 2, "x": 1}), {"data": source}, label="deep")
    return {"plain": Stage(Grow(text="语言"), label="plain"), "source": source, "deep": deep}


def test_golden_keys() -> None:
    assert {name: stage.key for name, stage in golden_stages().items()} == GOLDEN


def test_the_recipe_of_a_stage() -> None:
    deep = golden_stages()["deep"]
    assert recipe(deep) == {
        "part": "test_grow",
        "version": 1,
        "text": "b",
        "rate": 1e-4,
        "nested": {"kind": "nested", "version": 1, "rank": 16},
        "options": {"y": 2, "x": 1},
        "inputs": {"data": GOLDEN["source"]},
    }


def test_execution_labels_places_and_defaults_of_added_fields_are_not_in_the_key() -> None:
    one = Stage(Grow(text="a"), {"data": Source("sha256:00", Path("here"))}, label="one")
    other = Stage(
        Grow(text="a", seconds=5, tally="x", nested=Nested(threads=4), late=0),
        {"data": Source("sha256:00", Path("there"))},
        resources=Resources(cores=8),
        label="other",
    )
    assert one.key == other.key
    assert differences(recipe(one), recipe(other)) == []


@pytest.mark.parametrize("change", [{"text": "b"}, {"rate": 2.0}, {"nested": Nested(rank=9)}, {"options": {"a": 1}}, {"late": 1}])
def test_every_field_that_can_move_a_number_is_in_the_key(change: dict[str, object]) -> None:
    one, other = Stage(Grow(text="a")), Stage(Grow.model_validate({"text": "a", **change}))
    assert one.key != other.key
    assert [difference.path.split(".")[0] for difference in differences(recipe(one), recipe(other))] == list(change)


@st.composite
def graphs(draw: st.DrawFn) -> list[tuple[str, list[int]]]:
    """Texts and the earlier stages that each one needs."""
    size = draw(st.integers(2, 12))
    return [(f"s{index}", sorted(draw(st.sets(st.integers(0, index - 1), max_size=3))) if index else []) for index in range(size)]


def build(graph: list[tuple[str, list[int]]], changed: int | None = None) -> list[Stage]:
    stages: list[Stage] = []
    for index, (text, below) in enumerate(graph):
        spec = Grow(text=text, rate=2.0 if index == changed else 1.0)
        stages.append(Stage(spec, {f"in{each}": stages[each] for each in below}, label=text))
    return stages


@settings(deadline=None, max_examples=80)
@given(graph=graphs(), data=st.data())
def test_a_change_rekeys_exactly_its_descendants(graph: list[tuple[str, list[int]]], data: st.DataObject) -> None:
    changed = data.draw(st.integers(0, len(graph) - 1))
    before, after = build(graph), build(graph, changed)
    rekeyed = {index for index in range(len(graph)) if before[index].key != after[index].key}
    reached = {changed}
    for index, (_, below) in enumerate(graph):
        if reached & set(below):
            reached.add(index)
    assert rekeyed == reached
    below_key = descendants(by_key(before), before[changed].key)
    assert {stage.key for index, stage in enumerate(before) if index in reached} == below_key | {before[changed].key}

    recipes = recipes_of([*before, *after]).get
    for index in rekeyed:
        told = differences(recipe(before[index]), recipe(after[index]), recipes)
        assert len(told) == 1
        assert told[0].path.endswith("rate")
        assert (told[0].left, told[0].right) == (1.0, 2.0)


@settings(deadline=None, max_examples=40)
@given(graph=graphs())
def test_orders_have_every_stage_once_and_inputs_first(graph: list[tuple[str, list[int]]]) -> None:
    stages = build(graph)
    ordered = topological([*stages, *build(graph)])
    assert {stage.key for stage in ordered} == {stage.key for stage in stages}
    assert len(ordered) == len(stages)
    place = {stage.key: index for index, stage in enumerate(ordered)}
    assert all(place[below.key] < place[stage.key] for stage in ordered for below in stage.inputs.values() if isinstance(below, Stage))


def test_differences_name_the_field_below_an_input() -> None:
    def study(count: int) -> Stage:
        data = Stage(Grow(text="data", options={"count": count}), label="data")
        tune = Stage(Grow(text="tune"), {"data.train": data}, label="tune")
        return Stage(Grow(text="report"), {"tuned": tune, "data.train": data}, label="report")

    one, other = study(1000), study(2000)
    recipes = recipes_of([one, other]).get
    assert differences(recipe(one), recipe(other), recipes) == [Difference("inputs.data.train.options.count", 1000, 2000)]
    unknown = differences(recipe(one), recipe(other))
    assert [difference.path for difference in unknown] == ["inputs.tuned", "inputs.data.train"]


def test_differences_of_fields_that_one_side_lacks() -> None:
    told = differences({"a": 1, "l": [1, 2]}, {"b": {}, "l": [1]})
    assert told == [Difference("a", 1, ABSENT), Difference("l", [1, 2], [1]), Difference("b", ABSENT, {})]
    assert str(told[0]) == "a: 1 -> absent"


def test_a_cycle_is_an_error_that_shows_it() -> None:
    inputs: dict[str, Stage | Source] = {}
    first = Stage(Grow(text="first"), inputs, label="first")
    second = Stage(Grow(text="second"), {"in": first}, label="second")
    inputs["in"] = second
    with pytest.raises(StudyError, match=r"wait for each other: second <- first <- second"):
        key_of(second)


def test_a_chain_of_ten_thousand_stages_has_a_key() -> None:
    stage = Stage(Grow(text="0"))
    for _ in range(10_000):
        stage = Stage(Grow(text="x"), {"in": stage})
    assert len(stage.key) == 64
    assert len(in_order([stage])) == 10_001


def test_a_source_that_is_not_known_by_its_content_is_refused() -> None:
    with pytest.raises(StudyError, match=r"inputs\.data: the source 'train\.jsonl' is not known by its content"):
        key_of(Stage(Grow(text="a"), {"data": Source("train.jsonl", Path("train.jsonl"))}))
