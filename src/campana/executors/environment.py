"""What a task's process finds in its environment. What the person has set stays.

subprocess.Popen(argv, env=task_environment())
"""

from __future__ import annotations

import os

SPINS = "5000"
"""How often an OpenMP thread looks before it gives its core up. By default it looks so long that two threads that share their cores
with other work do half of what they could; this costs nothing on an idle machine (`benchmarks/NOTES.md`)."""


def task_environment() -> dict[str, str]:
    """The environment of a new process that runs tasks."""
    return {"GOMP_SPINCOUNT": SPINS, **os.environ}
