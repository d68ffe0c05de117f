"""What a run tells whoever watches: one frozen value an event. An observer is a function that takes them.

recorder = Recorder()
run([report], store, Inline(), recorder)
assert recorder.of(Built)[0].stage is model
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from campana.core.spec import Stage


@dataclass(frozen=True, slots=True)
class Planned:
    """The first event: what will be done."""

    reused: tuple[Stage, ...]
    """Built already."""
    to_build: tuple[Stage, ...]
    """To be built, inputs first."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process builds the stage."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another run builds the stage now; it will be reused."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a stage is."""

    stage: Stage
    done: float
    total: float
    unit: str
    figures: Mapping[str, float | str]


@dataclass(frozen=True, slots=True)
class Built:
    """The stage is in the store now."""

    stage: Stage
    seconds: float


@dataclass(frozen=True, slots=True)
class Reused:
    """The stage was in the store, or another run brought it there."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Failed:
    """The stage ended with an error."""

    stage: Stage
    error: str
    """In words for a person, hint included."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """The stage cannot be built in this run."""

    stage: Stage
    by: Stage
    """The failed stage that it needs, directly or not."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """A run was told to stop, and waits for tasks to save what they have done."""

    stages: tuple[Stage, ...]
    """Those that are being built."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The last event of a run that was told to stop. The same command goes on."""

    stages: tuple[Stage, ...]
    """Those that were being built."""


Event = Planned | Started | Waiting | Progressed | Built | Reused | Failed | Blocked | Stopping | Interrupted
Observer = Callable[[Event], None]
E = TypeVar("E", bound=Event)


def ignore(_: Event) -> None:
    """The observer that nobody reads."""


class Recorder:
    """An observer that remembers: the fake for tests."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Remember the event."""
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one class, in order."""
        return [event for event in self.events if isinstance(event, kind)]
