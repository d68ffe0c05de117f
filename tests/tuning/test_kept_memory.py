"""Who trains without mimalloc keeps what is freed too, where the C library is glibc."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FREED = """
import numpy as np
import psutil
from campana.tuning.machine import keep_memory

if {kept}:
    keep_memory()
block = np.ones(25_000_000)  # 200 MB: above what glibc ever keeps by itself
before = psutil.Process().memory_info().rss
del block
print(before - psutil.Process().memory_info().rss)
"""


def given_back(*, kept: bool) -> int:
    own = {**os.environ, "LD_PRELOAD": ""}
    found = subprocess.run([sys.executable, "-c", FREED.format(kept=kept)], env=own, check=True, capture_output=True, text=True)
    return int(found.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc on Linux")
def test_freed_blocks_are_kept() -> None:
    assert given_back(kept=False) > 100e6
    assert given_back(kept=True) < 10e6
