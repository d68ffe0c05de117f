"""Where tasks run. `Inline`: in this process. `Local`: a process each on this machine. All keep `core.executor.Executor`'s contract."""

from campana.executors.inline import Inline
from campana.executors.local import Local

__all__ = ["Inline", "Local"]
