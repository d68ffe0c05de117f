"""The canonical form: one and only one sequence of bytes for a value, so that equal recipes have equal keys.

It owns what may enter a key: text, whole numbers, finite floats, truth values, None, lists and mappings of these. It refuses all
else by its path: a set has no order, NaN is not equal to itself, an object has an address.

    >>> canonical({"b": (1, 1.0), "a": None})
    b'{"a":null,"b":[1,1.0]}'
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from campana.errors import StudyError


def canonical(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no blanks. 1 and 1.0 differ, as do 0.0 and -0.0; a list and a tuple of equal items do not.

    Raises `StudyError` naming the path of what has no canonical form.
    """
    try:
        plain = _plain(value)
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except UnicodeEncodeError:
        raise _refusal(value, _find_surrogate(value, ""), "text with half a surrogate pair") from None
    except RecursionError:
        raise _refusal(value, "", "a value nested without end") from None


def _plain(value: Any, path: str = "") -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        if value.bit_length() > 4096:
            raise _refusal(value, path, "a number of more than 4096 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refusal(value, path, f"{value!r}")
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise _refusal(value, path, f"a mapping with the key {name!r}, which is not text")
        return {name: _plain(item, joined(path, name)) for name, item in value.items()}
    raise _refusal(value, path, f"a {type(value).__name__}")


def joined(path: str, name: str) -> str:
    """`path.name`, or `name` at the root."""
    return f"{path}.{name}" if path else name


def _refusal(value: Any, path: str, what: str) -> StudyError:
    return StudyError(
        f"{what} has no canonical form and cannot be in a key",
        where=path or type(value).__name__,
        hint="use text, whole numbers, finite floats, true, false, null, lists or mappings; mark a field that moves no number EXECUTION",
    )


def _find_surrogate(value: Any, path: str) -> str:
    """The path of the first text that has no UTF-8 form; the root where it is a mapping's key."""
    if isinstance(value, (list, tuple)):
        found = (_find_surrogate(item, f"{path}[{index}]") for index, item in enumerate(value))
    elif isinstance(value, Mapping):
        found = (_find_surrogate(item, joined(path, name)) for name, item in value.items())
    else:
        return path if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value) else ""
    return next((place for place in found if place), "")
