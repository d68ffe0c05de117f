"""A loop that is asked to end (Ctrl-C, SIGTERM) finishes its step and saves before it obeys. A second Ctrl-C ends it at once.

    with Ending() as ending:
        while ...:
            step()
            asked = ending.is_asked
            checkpoint(at_once=asked)
            if asked:
                ending.obey()

Whoever kills it before the step and the save are over (the runner waits half a minute) loses what came after the last checkpoint.

What a signal would have done without it is done at `obey`, or at the end of the block. Only a main thread hears signals; elsewhere, for
signals that the process ignores, and where several ranks would have to end together (`heeded=False`), nothing is changed.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
log = logging.getLogger(__name__)


class Ending:
    """Whether the process was asked to end."""

    def __init__(self, *, heeded: bool = True) -> None:
        self._heeded = heeded and threading.current_thread() is threading.main_thread()
        self._asked: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def is_asked(self) -> bool:
        """Since the block was entered."""
        return self._asked is not None

    def obey(self) -> None:
        """End as asked, if it was."""
        number, self._asked = self._asked, None
        if number is not None:
            self._give_back()
            signal.raise_signal(number)

    def __enter__(self) -> Self:
        if self._heeded:
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._give_back()
        if kind is None:
            self.obey()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        impatient, self._asked = self.is_asked and number == signal.SIGINT, number  # a supervisor may send SIGTERM twice
        if impatient:
            self.obey()
        log.warning("the step is finished and saved first; Ctrl-C again ends at once")

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
