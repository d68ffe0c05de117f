"""Compiled code of ours, for what no library computes at the machine's rate: built from C on the machine that runs it, at first use.

    compiled = Attention.load(cache_dir)                  # Unavailable, with its reason, where it cannot be had
    compiled.forward(q, k, v, bounds, scale=..., window=None)

Whatever is here has a form in torch's own operations, which is used where there is no compiler or the processor lacks what it needs.
"""

from campana.native.attention import Attention
from campana.native.build import Unavailable

__all__ = ["Attention", "Unavailable"]
