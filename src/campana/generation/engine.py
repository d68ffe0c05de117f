"""The protocol of a generation engine, and what it is given.

It owns what goes in (`Request`, `Greedy`, `Sample`) and what comes out (`Completion`, `Phases`); how tokens are made is each engine's own.

    for completion in Packed().complete(model, [Request("q1#0", (1, 15, 27))], Greedy(), 64, frozenset({2}), on_tokens=print): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from campana.parts import Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from campana.native.compiled import Compiled


class Greedy(Part):
    """The most likely token each time. No seed: every run is the same."""

    kind: Literal["greedy"] = "greedy"


class Sample(Part):
    """Sampling from the model's distribution, with a generator of its own for every item."""

    kind: Literal["sample"] = "sample"
    seed: int
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)


Sampling = Annotated[Greedy | Sample, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to complete."""

    id: str
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model said. `token_ids` are without the end token."""

    id: str
    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    num_shared: int = field(default=0, compare=False)
    """Tokens of its prompt that were read for another completion, whose prompt begins with the same."""


@dataclass(slots=True)
class Phases:
    """Where an engine's time went. Engines add to it; it moves nothing."""

    prefill_seconds: float = 0.0
    """Reading prompts, up to each one's first new token."""
    decode_seconds: float = 0.0
    """Making the other tokens."""


class Engine(Part):
    """A way to generate. One file in `generation/engines` each. Which engine made an answer is part of its identity."""

    @property
    def group_size(self) -> int | None:
        """None where the law below holds to the bit. Else the number of requests that must always be answered together, in one call."""
        return None

    def complete(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        sampling: Greedy | Sample,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        on_tokens: Callable[[int], None],
        phases: Phases | None = None,
        compiled: Compiled | None = None,
    ) -> Iterator[Completion]:
        """Yield completions as they end, in any order; `on_tokens(n)` is told of every n new tokens; `phases` is added to.
        `compiled`: what an engine may compute a model with on a CPU, where it does so itself.

        Law: a request's completion does not depend on the other requests of the call. Where rounding can break it, `group_size` says so.
        """
        raise NotImplementedError
