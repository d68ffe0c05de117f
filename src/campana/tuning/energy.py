"""Energy: what the machine's own counters say was spent while a run went on. Where it has none, there is no figure.

    with Energy(counters_here(Ranks())) as energy:
        energy.spent()          # Spent(joules=812.4, of=("package-0",))

Counted are processor packages and memory (RAPL, through the kernel's powercap folder, which mostly only root may read) and this
process's NVIDIA GPU (NVML, where the library nvidia-ml-py is installed). The counters are the whole machine's: what else ran at the time
is in them. A counter that cannot be read to the end takes the figure with it: part of a sum is no sum.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

    from campana.tuning.ranks import Ranks

POWERCAP = Path("/sys/class/powercap")
SAMPLE_SECONDS = 10.0
"""Between two readings. A counter that wraps at 65 kJ, the smallest range in use, does so every 160 s at 400 W."""


@dataclass
class Counter:
    """A counter of energy that only grows, in microjoules, and begins again at 0 where its range ends."""

    name: str
    read: Callable[[], int]
    """Raises OSError where it cannot be read."""
    range: int | None = None
    """The highest value; None: it never wraps."""
    last: int = field(init=False)
    spent: int = field(init=False, default=0)
    is_lost: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.last = self.read()

    def sample(self) -> None:
        """Add what was spent since the last reading."""
        try:
            now = self.read()
        except OSError:
            self.is_lost = True
            return
        if now < self.last and self.range is None:  # a driver that was loaded again
            self.is_lost = True
        self.spent += now - self.last + (self.range or 0 if now < self.last else 0)
        self.last = now


@dataclass(frozen=True)
class Spent:
    """Energy, and what of the machine it was counted for."""

    joules: float
    of: tuple[str, ...]


NOTHING = Spent(0.0, ())


def together(parts: Sequence[Spent | None]) -> Spent | None:
    """The sum. None where a part is not known, or nothing was counted at all."""
    known = [part for part in parts if part is not None]
    names = tuple(dict.fromkeys(name for part in known for name in part.of))
    return Spent(sum(part.joules for part in known), names) if names and len(known) == len(parts) else None


class Energy:
    """Reads counters often enough that none wraps twice unseen, from a thread of its own, while the block runs."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        self._over = threading.Event()
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name="campana-energy", daemon=True)

    def spent(self) -> Spent | None:
        """Since the block began; None where a counter was lost. Without counters: nothing, for nothing."""
        self._sample()
        if any(counter.is_lost for counter in self._counters):
            return None
        return Spent(sum(counter.spent for counter in self._counters) / 1e6, tuple(counter.name for counter in self._counters))

    def __enter__(self) -> Self:
        if self._counters:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._counters:
            self._thread.join()

    def _loop(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        with self._guard:
            for counter in self._counters:
                counter.sample()


def counters_here(ranks: Ranks, powercap: Path = POWERCAP) -> list[Counter]:
    """The counters that this rank is to read: of the machine the first rank reads them, of its GPU each rank."""
    return [*(rapl(powercap) if ranks.is_first else ()), *nvml()]


def rapl(powercap: Path = POWERCAP) -> list[Counter]:
    """Packages, and memory where it is not in them. Other zones are parts of these, or another view of them (psys, mmio)."""
    found: list[Counter] = []
    for zone in sorted(powercap.glob("intel-rapl:*")):  # AMD's have this name too
        with contextlib.suppress(OSError, ValueError):
            name = (zone / "name").read_text().strip()
            place = zone.name.removeprefix("intel-rapl:").split(":")
            if name.startswith("package") or name == "dram":
                label = name if name != "dram" else f"dram-{place[0]}"
                found.append(Counter(label, lambda path=zone / "energy_uj": int(path.read_text()), _range(zone)))
    return found


def nvml() -> list[Counter]:
    """This process's GPU, where there is one that counts and the library to ask it."""
    import torch

    if not torch.cuda.is_available():
        return []
    try:
        import pynvml  # pyright: ignore[reportMissingImports] # an optional library
    except ImportError:
        return []
    library: Any = pynvml

    def read() -> int:
        try:
            return 1000 * int(library.nvmlDeviceGetTotalEnergyConsumption(gpu))
        except library.NVMLError as error:
            raise OSError(str(error)) from error

    try:
        library.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        gpu = library.nvmlDeviceGetHandleByUUID(uuid)
        return [Counter(uuid, read)]
    except (library.NVMLError, OSError):  # before Volta GPUs do not count
        return []


def _range(zone: Path) -> int:
    return int((zone / "max_energy_range_uj").read_text())
