"""The C files of this package -> one shared library in the cache, loaded: compiled once for a source, a compiler and its flags.

    library = load(cache_dir)

The OpenMP runtime is torch's own, which is loaded already: a second one would fight it for the cores, so the library is linked without
and GCC compiles it (another compiler asks for another runtime). Refuses (`Unavailable`) processors without `INSTRUCTIONS`, machines
without GCC, and what GCC refuses, each with its reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import shutil
import subprocess
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from campana.errors import ModelError
from campana.models.cache import locked, publish

INSTRUCTIONS = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16")
"""As Linux names them. AMD's Zen 4 and Intel's Cooper Lake and Sapphire Rapids have all, and so has what came after them."""
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fopenmp", "-mfma", *(f"-m{name.replace('_', '')}" for name in INSTRUCTIONS))
LIBRARY = "library.so"


class Unavailable(Exception):  # noqa: N818 (a state of the machine, which callers answer with another form)
    """Compiled code cannot be had here; the message says why."""


def lacks_compiler() -> bool:
    """Whether only GCC is missing: the processor has the instructions. Asked without loading anything."""
    return shutil.which("gcc") is None and set(INSTRUCTIONS) <= _instructions_here()


@cache
def load(cache_dir: Path) -> ctypes.CDLL:
    """The library, compiled now (a second or two) where the cache does not hold it. Raises Unavailable."""
    missing = set(INSTRUCTIONS) - _instructions_here()
    if missing:
        raise Unavailable(f"this processor lacks {', '.join(sorted(missing))}")
    compiler = shutil.which("gcc")
    if compiler is None:
        raise Unavailable("there is no C compiler (gcc) to build them with")
    folder = Path(str(files("campana.native")))
    entry = cache_dir / "native" / _identity(folder, compiler)
    try:
        with locked(entry):
            with contextlib.suppress(OSError):  # absent or damaged: made anew
                return _open(entry / LIBRARY)
            publish(lambda target: _compile(compiler, folder, target), entry)
            return _open(entry / LIBRARY)
    except (OSError, ModelError) as error:
        raise Unavailable(f"they could not be built or loaded: {error}") from error


def _open(path: Path) -> ctypes.CDLL:
    import_module("torch")  # brings the OpenMP runtime that the library asks for
    return ctypes.CDLL(str(path))


def _identity(folder: Path, compiler: str) -> str:
    version = subprocess.run([compiler, "-dumpfullversion", "-dumpmachine"], capture_output=True, text=True, check=False).stdout
    sources = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.[ch]"))]
    return hashlib.sha256("\0".join((version, *FLAGS, *sources)).encode()).hexdigest()[:16]


def _compile(compiler: str, folder: Path, target: Path) -> None:
    """Compiled with -fopenmp and linked without: the runtime's names are found in torch's when the library is loaded."""
    objects: list[str] = []
    for source in sorted(folder.glob("*.c")):
        objects.append(str(target / f"{source.stem}.o"))
        _run(compiler, *FLAGS, "-c", str(source), "-o", objects[-1])
    _run(compiler, "-shared", *objects, "-lm", "-o", str(target / LIBRARY))
    for name in objects:
        Path(name).unlink()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"gcc ended with {done.returncode}: {done.stderr.strip()[:500]}")


def _instructions_here() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
