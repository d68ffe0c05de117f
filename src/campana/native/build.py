"""The C files of this package -> shared libraries in the cache, loaded: compiled once for a source, a compiler and its flags.

    library = load(BF16, cache_dir)     # the files of native/bf16; FP32: those of native/fp32

The OpenMP runtime is torch's own, which is loaded already: a second one would fight it for the cores, so the library is linked without
and GCC compiles it (another compiler asks for another runtime). Refuses (`Unavailable`) processors without the instructions, machines
without GCC, and what GCC refuses, each with its reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from campana.errors import ModelError
from campana.models.cache import locked, publish

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fopenmp")
LIBRARY = "library.so"
_PACKAGE = Path(str(files("campana.native")))


@dataclass(frozen=True)
class Code:
    """The C files of one folder here, and what a processor must have for them."""

    folder: str
    instructions: tuple[str, ...]
    """As Linux names them."""

    @property
    def flags(self) -> tuple[str, ...]:
        """GCC's."""
        return (*FLAGS, *(f"-m{name.replace('_', '')}" for name in self.instructions))


BF16 = Code("bf16", ("fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"))
"""AMD's Zen 4 and Intel's Cooper Lake and Sapphire Rapids have all of these, and so has what came after them."""
FP32 = Code("fp32", ("avx2", "fma"))
"""Intel's processors from Haswell (2013) on but for some Pentium, Celeron and Atom, and AMD's from Excavator (2015) on."""


class Unavailable(Exception):  # noqa: N818 (a state of the machine, which callers answer with another form)
    """Compiled code cannot be had here; the message says why."""


CODES = {"bf16": BF16, "fp32": FP32}


def missing(code: Code) -> set[str]:
    """The instructions that this processor lacks."""
    return set(code.instructions) - _instructions_here()


def lacks_bf16_units() -> bool:
    """Whether this processor is known to make products of bf16 numbers by other instructions, many times as slow as of fp32 ones."""
    return bool(_instructions_here()) and _instructions_here().isdisjoint(("avx512_bf16", "amx_bf16", "avx_ne_convert"))


def lacks_compiler(code: Code) -> bool:
    """Whether only GCC is missing: the processor has the instructions. Asked without loading anything."""
    return shutil.which("gcc") is None and not missing(code)


@cache
def load(code: Code, cache_dir: Path) -> ctypes.CDLL:
    """The library, compiled now (a second or two) where the cache does not hold it. Raises Unavailable."""
    if lacking := missing(code):
        raise Unavailable(f"this processor lacks {', '.join(sorted(lacking))}")
    compiler = shutil.which("gcc")
    if compiler is None:
        raise Unavailable("there is no C compiler (gcc) to build them with")
    entry = cache_dir / "native" / _identity(code, compiler)
    try:
        with locked(entry):
            with contextlib.suppress(OSError):  # absent or damaged: made anew
                return _open(entry / LIBRARY)
            publish(lambda target: _compile(compiler, code, target), entry)
            return _open(entry / LIBRARY)
    except (OSError, ModelError) as error:
        raise Unavailable(f"they could not be built or loaded: {error}") from error


def _open(path: Path) -> ctypes.CDLL:
    import_module("torch")  # brings the OpenMP runtime that the library asks for
    return ctypes.CDLL(str(path))


def _identity(code: Code, compiler: str) -> str:
    version = subprocess.run([compiler, "-dumpfullversion", "-dumpmachine"], capture_output=True, text=True, check=False).stdout
    sources = [
        path.read_text(encoding="utf-8") for path in (*sorted(_PACKAGE.glob("*.h")), *sorted((_PACKAGE / code.folder).glob("*.[ch]")))
    ]
    return hashlib.sha256("\0".join((version, *code.flags, *sources)).encode()).hexdigest()[:16]


def _compile(compiler: str, code: Code, target: Path) -> None:
    """Compiled with -fopenmp and linked without: the runtime's names are found in torch's when the library is loaded."""
    objects: list[str] = []
    for source in sorted((_PACKAGE / code.folder).glob("*.c")):
        objects.append(str(target / f"{source.stem}.o"))
        _run(compiler, *code.flags, "-c", str(source), "-o", objects[-1])
    _run(compiler, "-shared", *objects, "-lm", "-o", str(target / LIBRARY))
    for name in objects:
        Path(name).unlink()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"gcc ended with {done.returncode}: {done.stderr.strip()[:500]}")


@cache
def _instructions_here() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
