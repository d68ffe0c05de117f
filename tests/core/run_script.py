"""A run in a process of its own, to be interrupted and killed: `python run_script.py STORE TALLY SECONDS fresh|prefork`.

Prints one JSON object when it has ended: what was built, reused, failed, and whether it was interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stored import grow

from campana.core.observer import Event, Interrupted, Started, Stopping
from campana.core.runner import run
from campana.core.spec import Resources, Stage
from campana.core.store import Store
from campana.executors import Local


def study(tally: str = "", seconds: float = 0.0, faults: str = "") -> Stage:
    """Seven stages: one, three beside each other on it, two on those, one on all."""
    fields = {"tally": tally, "seconds": seconds, "faults": faults}
    root = grow("root", **fields)
    arms = [grow(f"arm{index}", root, **fields) for index in range(3)]
    pairs = [grow("pair0", arms[0], arms[1], **fields), grow("pair1", arms[1], arms[2], **fields)]
    return grow("report", *pairs, arms[0], **fields)


def main(store: str, tally: str, seconds: str, how: str) -> None:
    """Run the study and say how it went."""

    def tell(event: Event) -> None:
        if isinstance(event, Started):
            sys.stderr.write(f"started {event.stage.label}\n")
        if isinstance(event, Stopping | Interrupted):
            sys.stderr.write(f"{type(event).__name__.lower()} {len(event.stages)}\n")
        sys.stderr.flush()

    with Local(prefork=how == "prefork") as executor:
        result = run([study(tally, float(seconds))], Store(Path(store)), executor, tell, Resources(cores=2, memory_bytes=4 << 30))
    sys.stdout.write(json.dumps({name: getattr(result, name) for name in ("built", "reused", "failed", "blocked", "interrupted")}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
