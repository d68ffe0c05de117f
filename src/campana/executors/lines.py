"""Lines of JSON from a task's stdout, read without ever waiting. What is no notice is left out: the log has what a stage prints."""

from __future__ import annotations

import json
import os

from campana.core.executor import Hear, Notice

BLOCK = 65536


class Lines:
    """The reading end of a task's pipe."""

    def __init__(self, key: str, descriptor: int, hear: Hear) -> None:
        os.set_blocking(descriptor, False)
        self.is_over = False
        self._key = key
        self._descriptor = descriptor
        self._hear = hear
        self._rest = b""

    def fileno(self) -> int:
        """For a selector."""
        return self._descriptor

    def read(self) -> None:
        """Tell every whole line that is there."""
        while not self.is_over:
            try:
                block = os.read(self._descriptor, BLOCK)
            except BlockingIOError:
                return
            self.is_over = not block
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                self._tell(line)

    def _tell(self, line: bytes) -> None:
        try:
            row = json.loads(line)
        except ValueError:
            return
        if isinstance(row, dict):
            self._hear(Notice(self._key, row))
