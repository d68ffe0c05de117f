"""`python -m campana`: the same as the command `campana`."""

import sys

from campana.cli import main
from campana.executors.environment import start_anew

TASKS = (["read", "train"],)
"""Commands that do a task's work in their own process."""


def run() -> None:
    """The command line as a program of its own."""
    if sys.argv[1:3] in TASKS:
        start_anew()
    main()


if __name__ == "__main__":
    run()
