"""Progress of work on one thing after another whose end is not known: how many, and how quickly, on stderr.

for answer in counted(answers, "answered"): ...
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from campana.cli.pace import seconds_between

T = TypeVar("T")


def counted(things: Iterable[T], done_word: str, before: int = 0) -> Iterator[T]:
    """The same things, with their number (`before` were there already) and rate: redrawn on a terminal, else a line now and then."""
    terminal = sys.stderr.isatty()
    start = last = time.monotonic()
    for number, thing in enumerate(things, 1):
        yield thing
        now = time.monotonic()
        if now - last >= seconds_between(terminal=terminal):
            last = now
            told = f"{before + number:,} {done_word}, {number / (now - start):.1f} a second"
            sys.stderr.write(f"\r\x1b[K{told}" if terminal else told + "\n")
            sys.stderr.flush()
    if terminal and last != start:
        sys.stderr.write("\r\x1b[K")
