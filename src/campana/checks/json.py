"""`json`: the answer is JSON, with what it must hold.

{"kind": "json", "values": {"name": "Ada", "age": 36}, "only_listed": true}      # a third of the value each
{"kind": "json", "json_schema": {"type": "array", "minItems": 2}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NoReturn

from pydantic import JsonValue, field_validator

from campana.checks._protocol import Check, Outcome
from campana.checks._text import final_text, same_text, shown, unfenced
from campana.records import Answer, Item

TypeName = Literal["string", "number", "integer", "boolean", "array", "object", "null"]

_MOST_TRIES = 50
_PATTERN_SECONDS = 1.0
_MISSING = object()


def _whole(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": _whole,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


class JsonCheck(Check):
    """The share of the demands that are met: being JSON, and each key, type, value and the schema. Not JSON: 0."""

    kind: Literal["json"] = "json"
    bare: bool = False
    """True: the answer must be nothing but JSON. False: a code fence or words around it do no harm."""
    keys: tuple[str, ...] = ()
    """Each must be a key of the object."""
    types: Mapping[str, TypeName] = {}
    """Key -> the type of its value."""
    values: Mapping[str, JsonValue] = {}
    """Key -> its value. Texts are compared as `exact` does; 36 and 36.0 are equal, 36 and "36" are not."""
    only_listed: bool = False
    """True: no keys but those named in `keys`, `types` and `values`."""
    equals_reference: bool = False
    """True: the whole must equal the item's reference, itself JSON."""
    json_schema: Mapping[str, JsonValue] | None = None
    """A JSON Schema that the whole must satisfy."""

    @field_validator("json_schema")
    @classmethod
    def _is_schema(cls, schema: Mapping[str, JsonValue] | None) -> Mapping[str, JsonValue] | None:
        if schema is None:
            return None
        from jsonschema import Draft202012Validator, SchemaError

        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"not a JSON Schema: {error.message}") from None
        return schema

    def score(self, item: Item, answer: Answer) -> Outcome:
        """The share of the demands that are met; unscored where the reference is needed and is missing or not JSON."""
        gold: Any = None
        if self.equals_reference:
            if item.reference is None:
                return Outcome(None, "no reference to compare with")
            gold = parse(item.reference, bare=False)
            if gold is _MISSING:
                return Outcome(None, f"the reference {shown(item.reference)} is not JSON")
        text = final_text(answer)
        found = parse(text, bare=self.bare)
        if found is _MISSING:
            return Outcome(0.0, f"not JSON: {shown(text)}")
        try:
            complaints = list(self._complaints(found, gold))
        except TimeoutError:
            return Outcome(None, "a pattern of the JSON Schema backtracks without end")
        wrong = [complaint for complaint in complaints if complaint]
        return Outcome((1 + len(complaints) - len(wrong)) / (1 + len(complaints)), ", ".join(wrong) or "JSON with all that it must hold")

    def _complaints(self, found: Any, gold: Any) -> Iterator[str]:
        """One text a demand, empty where it is met."""
        fields: dict[str, Any] = found if isinstance(found, dict) else {}
        for key in self.keys:
            yield "" if key in fields else f"lacks {key!r}"
        for key, name in self.types.items():
            yield "" if key in fields and _TYPES[name](fields[key]) else f"{key!r} is no {name}" if key in fields else f"lacks {key!r}"
        for key, value in self.values.items():
            if key in fields:
                yield "" if same(fields[key], value) else f"expected {key} {_short(value)}, found {_short(fields[key])}"
            else:
                yield f"lacks {key!r}"
        if self.only_listed:
            extra = [key for key in fields if key not in {*self.keys, *self.types, *self.values}]
            yield f"has {', '.join(map(repr, extra))} too" if extra else "" if isinstance(found, dict) else "is no object"
        if self.equals_reference:
            yield "" if same(found, gold) else f"expected {_short(gold)}, found {_short(found)}"
        if self.json_schema is not None:
            yield _against(self.json_schema, found)


def parse(text: str, *, bare: bool) -> Any:
    """The JSON value of a text. Not `bare`: or that in its code fence, or its first object or array. `_MISSING` where there is none."""
    value = _loaded(text)
    if bare or value is not _MISSING:
        return value
    inside = unfenced(text)
    value = _loaded(inside)
    if value is not _MISSING:
        return value
    starts = [position for position, ch in enumerate(inside) if ch in "{["][:_MOST_TRIES]
    return next((value for start in starts if (value := _loaded(inside[start:], prefix=True)) is not _MISSING), _MISSING)


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: texts folded, numbers as numbers, true is not 1."""
    if isinstance(left, str) and isinstance(right, str):
        return same_text(left, right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left == right or ((isinstance(left, float) or isinstance(right, float)) and _close(left, right))
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left is None and right is None


def _close(left: float, right: float) -> bool:
    try:
        return math.isclose(left, right, rel_tol=1e-12)
    except OverflowError:  # a whole number beyond any float
        return False


def _loaded(text: str, *, prefix: bool = False) -> Any:
    decoder = json.JSONDecoder(parse_constant=_refuse)
    try:
        return decoder.raw_decode(text)[0] if prefix else decoder.decode(text)
    except (ValueError, RecursionError):
        return _MISSING


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _against(schema: Mapping[str, JsonValue], found: Any) -> str:
    """What the schema says against a value, or nothing. A `$ref` to elsewhere is an error of the suite: nothing is fetched."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from jsonschema.validators import extend
    from referencing import Registry

    validator = extend(Draft202012Validator, {"pattern": _pattern})
    try:
        error = best_match(validator(schema, registry=Registry()).iter_errors(found))
    except (OverflowError, RecursionError):
        return "a number too large, or nesting too deep, for its JSON Schema"
    if error is None:
        return ""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path).lstrip(".")
    return f"{place}: {shown(error.message)}" if place else shown(error.message)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:  # noqa: ARG001 - jsonschema's signature
    """The keyword `pattern`, with a time limit: TimeoutError."""
    import regex
    from jsonschema import ValidationError

    if isinstance(instance, str) and not regex.search(pattern, instance, timeout=_PATTERN_SECONDS):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _short(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= 60 else written[:57] + "..."
