"""What can still be read of a JSON document that ends too early or breaks off: everything up to the last whole question.

salvage('{"data": [{"paragraphs": [{"context": "...", "qas": [{"id": "1"}, {"id":', ("data", "paragraphs", "qas"))
# {"data": [{"paragraphs": [{"context": "...", "qas": [{"id": "1"}]}]}]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A text, which the end of the document may cut off, or a bracket."""
_CLOSE = {"[": "]", "{": "}"}


def salvage(text: str, arrays: Collection[str]) -> Any:
    """The value that `text` begins, closed after the last complete object of one of the named arrays.

    Objects of other arrays belong to one that is not complete and go with it. None where there is nothing to keep.
    """
    stack: list[tuple[str, str]] = []
    kept: tuple[int, str] | None = None
    last_text = ""
    for match in _TOKEN.finditer(text):
        mark = match.group()
        if mark in _CLOSE:
            stack.append((mark, last_text))
        elif mark in ("]", "}"):
            if not stack or _CLOSE[stack[-1][0]] != mark:
                break
            stack.pop()
            if mark == "}" and stack and stack[-1][0] == "[" and stack[-1][1] in arrays:
                kept = match.end(), "".join(_CLOSE[opened] for opened, _ in reversed(stack))
        else:
            last_text = mark[1:-1]
    if kept is None:
        return None
    end, closing = kept
    try:
        return json.loads(text[:end] + closing)
    except ValueError:  # broken before the end as well, not only cut
        return None
