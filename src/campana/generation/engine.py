"""The protocol of a generation engine, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from campana.parts import Part

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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


class Engine(Part):
    """A way to generate. One file in `generation/engines` each. Which engine made an answer is part of its identity."""

    def complete(
        self,
        model: PreTrainedModel,
        requests: Sequence[Request],
        sampling: Greedy | Sample,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        on_tokens: Callable[[int], None],
    ) -> Iterator[Completion]:
        """Yield completions as they end, in any order; `on_tokens(n)` is told of every n new tokens.

        Law: a request's completion does not depend on the other requests of the call.
        """
        raise NotImplementedError
