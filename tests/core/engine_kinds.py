"""Stages for the engine's tests: small, countable, and able to fail, hang or die when told to.

They reach worker processes as parts of other distributions do: by an entry point (see `conftest.py`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from campana.core.spec import Context, Meter, StageSpec
from campana.errors import DataError
from campana.journal import Journal
from campana.parts import ADDED, EXECUTION, Part


class Nested(Part):
    """A part in a part."""

    kind: Literal["nested"] = "nested"
    rank: int = 8
    threads: Annotated[int, EXECUTION] = 1


class Grow(StageSpec):
    """Write `text.txt`: the text, and below it what the inputs wrote."""

    kind: Literal["test_grow"] = "test_grow"
    text: str
    rate: float = 1.0
    nested: Nested = Nested()
    options: Mapping[str, int] = {}
    late: Annotated[int, ADDED] = 0
    seconds: Annotated[float, EXECUTION] = 0.0
    """How long it takes, in steps of which each is journalled."""
    tally: Annotated[str, EXECUTION] = ""
    """A file that gets a line each time the work is done to its end."""
    faults: Annotated[str, EXECUTION] = ""
    """A folder; a file in it named for the text says once what goes wrong: fail, refuse, die, forget, link, nan."""

    def run(self, context: Context) -> Meter:
        context.progress(0, 1, "steps", note="begun")
        self._take_time(context.scratch_dir)
        fault = self._fault()
        if fault == "fail":
            raise ZeroDivisionError("the test asked for it")
        if fault == "refuse":
            raise DataError("row 7 is wrong", where="data.jsonl:7", hint="mend row 7")
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "link":
            (context.out_dir / "link").symlink_to("/etc/hostname")
        below = [(path / "text.txt" if path.is_dir() else path).read_text() for path in context.inputs.values()]
        if fault != "forget":
            (context.out_dir / "text.txt").write_text("\n".join([self.text, *below]))
            (context.out_dir / "sub").mkdir(exist_ok=True)  # another rank may be first
            (context.out_dir / "sub" / "length.json").write_text(str(len(self.text)))
        if self.tally:
            with Path(self.tally).open("a") as file:
                file.write(self.text + "\n")
        sys.stdout.write("printed by the stage\n")  # must not reach the protocol on stdout
        context.progress(1, 1, "steps")
        return {"tokens": float("nan") if fault == "nan" else len(self.text), "resumed": self._steps}

    def outputs_to_check(self) -> Iterable[str]:
        return ("text.txt",)

    _steps: int = 0

    def _take_time(self, scratch_dir: Path) -> None:
        end = time.monotonic() + self.seconds
        with Journal(scratch_dir / "steps.jsonl") as journal:
            object.__setattr__(self, "_steps", len(journal.rows()))
            while time.monotonic() < end:
                journal.append({"step": 1})
                time.sleep(0.02)

    def _fault(self) -> str:
        path = Path(self.faults) / self.text
        if not self.faults or not path.is_file():
            return ""
        fault = path.read_text()
        path.unlink()
        return fault


class Threaded(Grow):
    """Asks for a module that cannot be imported and one that makes forking unsound."""

    kind: Literal["test_threaded"] = "test_threaded"  # type: ignore[assignment]  # another kind of the same form
    imports: ClassVar[tuple[str, ...]] = ("no_such_module", "threaded_import")


class Annotate(Grow):
    """Stands for labels made by people, which nothing may delete."""

    kind: Literal["annotate"] = "annotate"  # type: ignore[assignment]  # another kind of the same form
