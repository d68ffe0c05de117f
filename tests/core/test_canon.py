"""The canonical form is one to one, and what has none is refused by its path."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.core.canon import canonical
from campana.errors import StudyError

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8"))
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3),
    max_leaves=8,
)


def tagged(value: object) -> object:
    """An independent description of a value in which no two different values are equal (as 1, 1.0 and True are in Python)."""
    if isinstance(value, dict):
        return ("mapping", tuple(sorted((name, tagged(item)) for name, item in value.items())))
    if isinstance(value, list):
        return ("list", tuple(tagged(item) for item in value))
    return (type(value).__name__, repr(value))


@settings(deadline=None, max_examples=200)
@given(left=VALUES, right=VALUES)
def test_two_values_share_a_form_exactly_where_they_are_the_same(left: object, right: object) -> None:
    assert (canonical(left) == canonical(right)) == (tagged(left) == tagged(right))


@settings(deadline=None, max_examples=100)
@given(value=VALUES)
def test_the_form_reads_back_as_the_value(value: object) -> None:
    assert tagged(json.loads(canonical(value))) == tagged(value)


@settings(deadline=None, max_examples=50)
@given(items=st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=3), st.integers()), unique_by=lambda item: item[0]))
def test_the_order_of_a_mapping_is_no_part_of_it(items: list[tuple[str, int]]) -> None:
    assert canonical(dict(items)) == canonical(MappingProxyType(dict(reversed(items))))


def test_numbers_of_different_types_differ() -> None:
    forms = [canonical(value) for value in (1, 1.0, True, "1", [1], -0.0, 0.0, None)]
    assert len(set(forms)) == len(forms)
    assert canonical((1, 2)) == canonical([1, 2])


@pytest.mark.parametrize(
    ("value", "path", "what"),
    [
        ({"a": {"b": [0, float("nan")]}}, r"a\.b\[1\]", "nan"),
        ({"a": float("inf")}, "a", "inf"),
        ({"a": {1, 2}}, "a", "a set"),
        ({"a": b"x"}, "a", "a bytes"),
        ({"a": {1: 2}}, "a", "the key 1"),
        ({"a": ["ok", "\ud83d"]}, r"a\[1\]", "surrogate"),
        ({"a": 1 << 5000}, "a", "4096 bits"),
        (object(), "object", "an? object"),
    ],
)
def test_what_has_no_form_is_refused_by_its_path(value: object, path: str, what: str) -> None:
    with pytest.raises(StudyError, match=rf"^{path}: .*{what}"):
        canonical(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(StudyError, match="without end"):
        canonical(loop)
