"""Process-wide settings of the machine, measured to pay."""

from __future__ import annotations


def keep_memory() -> None:
    """Let glibc's allocator keep what is freed."""
    import contextlib
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)
        libc.mallopt(-1, (1 << 31) - 1)
