"""A C file of this package -> a shared library in the cache, loaded: compiled once for a source, a compiler and a set of instructions.

    library = load("attention.c", cache_dir)

The OpenMP runtime is torch's own, which is loaded already: a second one would fight it for the cores, so the library is linked without
and GCC compiles it (another compiler asks for another runtime). Refuses (`Unavailable`) processors without `INSTRUCTIONS`, machines
without GCC, and what GCC refuses, each with its reason.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from functools import cache
from importlib.resources import files
from pathlib import Path

from campana.errors import ModelError
from campana.models.cache import locked, publish

INSTRUCTIONS = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16")
"""As Linux names them. All are in AMD's Zen 4 and Intel's Cooper Lake and Sapphire Rapids, and in what came after them."""
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fopenmp", "-mfma", *(f"-m{name.replace('_', '')}" for name in INSTRUCTIONS))
LIBRARY = "library.so"


class Unavailable(Exception):  # noqa: N818 (a state of the machine, which callers answer with another form)
    """Compiled code cannot be had here; the message says why."""


@cache
def load(name: str, cache_dir: Path) -> ctypes.CDLL:
    """The library of a C file, compiled now where the cache does not hold it. Raises Unavailable."""
    import torch  # noqa: F401  (brings the OpenMP runtime that the library asks for)

    missing = set(INSTRUCTIONS) - _instructions_here()
    if missing:
        raise Unavailable(f"this processor lacks {', '.join(sorted(missing))}")
    compiler = shutil.which("gcc")
    if compiler is None:
        raise Unavailable("there is no C compiler (gcc) to build it with")
    source = Path(str(files("campana.native").joinpath(name)))
    version = subprocess.run([compiler, "-dumpfullversion", "-dumpmachine"], capture_output=True, text=True, check=False).stdout
    identity = hashlib.sha256("\0".join((source.read_text(encoding="utf-8"), version, *FLAGS)).encode()).hexdigest()[:16]
    entry = cache_dir / "native" / f"{source.stem}-{identity}"
    try:
        with locked(entry):
            if not entry.exists():
                publish(lambda folder: _compile(compiler, source, folder / LIBRARY), entry)
        return ctypes.CDLL(str(entry / LIBRARY))
    except (OSError, ModelError) as error:
        raise Unavailable(f"it could not be built or loaded: {error}") from error


def _compile(compiler: str, source: Path, target: Path) -> None:
    unlinked = target.with_suffix(".o")
    for command in (
        [compiler, *FLAGS, "-c", str(source), "-o", str(unlinked)],
        [compiler, "-shared", str(unlinked), "-lm", "-o", str(target)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{compiler} ended with {done.returncode}: {done.stderr.strip()[:500]}")
    unlinked.unlink()


def _instructions_here() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
