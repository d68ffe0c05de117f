"""What a stage is: a frozen spec, named inputs, and resources. And what it gets when it runs: a `Context`.

    tune = Stage(Tune(method=Lora(rank=16), ...), inputs={"model": base, "data": prepared}, resources=Resources(cores=2))

A stage's key depends on its spec's identity and its inputs' keys alone (`core.keys`). A stage never learns its key, its
arm's name or where the store is: it reads `context.inputs` and writes into `context.out_dir`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

from campana.parts import Part


@dataclass(frozen=True)
class Resources:
    """How big a stage is. Execution only: never in a key."""

    cores: int = 1
    memory_bytes: int = 1 << 30
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Expected:
    """What a stage was predicted to take before it ran. Execution only: recorded beside what it took, never in a key. None: not known."""

    seconds: float | None = None
    memory_bytes: int | None = None
    """Peak of its process."""
    disk_bytes: int | None = None
    """Of the files that it leaves."""
    calibration: str = ""
    """What the prediction was made with; ratios of different calibrations are not compared."""
    seconds_factor: float = 1.0
    """In `seconds`: the correction that earlier stages on this machine taught."""
    memory_factor: float = 1.0
    """In `memory_bytes`: the same."""


@dataclass(frozen=True)
class Source:
    """Data from outside, known by its content.

    `identity` is what enters the key (`sha256:...` of a file or a folder); `path` is where it lies here and enters nothing.
    """

    identity: str
    path: Path = field(compare=False)
    whole: str | None = field(default=None, compare=False)
    """The digest of all that lies there, where `identity` is of a part alone: of a suite's prompts, without its checks. In no key."""

    @property
    def digest(self) -> str:
        """Of all that lies there: as long as it is this, nothing has changed."""
        return self.whole or self.identity


@dataclass(frozen=True, eq=False)
class Stage:
    """One unit of work. Two stages with equal keys are the same work."""

    spec: StageSpec
    inputs: Mapping[str, Stage | Source] = field(default_factory=dict)
    resources: Resources = Resources()
    label: str = ""
    """What people call it ("tune method=lora size=1k seed=0"); never in a key."""

    @cached_property
    def key(self) -> str:
        """64 hex digits: the hash of the canonical form of the recipe."""
        from campana.core.keys import key_of

        return key_of(self)


class Progress(Protocol):
    """Tells the person how far a stage is. `done`/`total` are in `unit`s; further figures by name (loss=..., tokens_per_second=...)."""

    def __call__(self, done: float, total: float, unit: str, **figures: float | str) -> None:
        """Say that `done` of `total` is done. Cheap: call it as often as you like."""
        ...


@dataclass(frozen=True)
class Context:
    """What a running stage may touch."""

    inputs: Mapping[str, Path]
    """Input name -> the folder of a built stage (read-only), or the path of a source."""
    out_dir: Path
    """Empty at the start; what is here at the end is published."""
    scratch_dir: Path
    """Journals and checkpoints: survives a kill, is given back to the next try of the same key, and goes once built."""
    resources: Resources
    progress: Progress
    cache_dir: Path | None = None
    """Where downloads are kept between runs and stores; None: the platform's place. In no key."""

    def many(self, prefix: str) -> dict[str, Path]:
        """The inputs named `prefix.<name>`, by name, in the order in which they were given."""
        return {name.removeprefix(prefix + "."): path for name, path in self.inputs.items() if name.startswith(prefix + ".")}


Meter = Mapping[str, Any]
"""What a stage measured of itself, JSON: tokens, flops, peak_memory_bytes. The runner adds seconds. Never in a key."""


class StageSpec(Part):
    """The spec of a kind of stage. Subclasses live one a file in `campana.stages`."""

    imports: ClassVar[tuple[str, ...]] = ()
    """Slow modules that `run` imports. An executor that forks imports them once for all stages; naming none is only slower."""

    def run(self, context: Context) -> Meter:
        """Do the work: read `context.inputs`, write `context.out_dir`, return what was measured."""
        raise NotImplementedError

    def outputs_to_check(self) -> Iterable[str]:
        """Files that must exist in `out_dir` when `run` returns; the worker fails the stage otherwise."""
        return ()
