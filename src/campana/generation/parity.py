"""How an engine's answers compare with those of the model's own forward pass: the same tokens, or where they part and by how little.

    found = parity(Packed(), model, requests, max_new_tokens=64, stop_ids=template.stop_ids)
    found.num_same, found.differences       # a difference names both tokens and both logits

Greedy, each prompt alone on the yardstick (`Transformers`, a batch of one). In fp32 an engine that is right parts only at ties: two tokens
whose logits are nearer than rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from campana.generation.engine import Completion, Engine, Greedy, Request
from campana.generation.engines.reference import Transformers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Difference:
    """The first token that two answers to one prompt do not share."""

    id: str
    place: int
    """Tokens that they share."""
    expected: int
    """The yardstick's next token."""
    found: int
    """The engine's next token. Where it ended, the likeliest of those that end an answer."""
    expected_logit: float
    found_logit: float
    """Both by the model's own forward pass over the prompt and what the answers share."""

    @property
    def gap(self) -> float:
        """How much likelier the yardstick's token was, as a difference of logits."""
        return self.expected_logit - self.found_logit


@dataclass(frozen=True, slots=True)
class Parity:
    """An engine beside the yardstick."""

    num_same: int
    differences: tuple[Difference, ...]

    @property
    def largest_gap(self) -> float:
        """0 where all answers are the same."""
        return max((difference.gap for difference in self.differences), default=0.0)


def parity(engine: Engine, model: PreTrainedModel, requests: Sequence[Request], *, max_new_tokens: int, stop_ids: frozenset[int]) -> Parity:
    """Answer all requests twice and compare."""

    def answers(of: Engine) -> dict[str, Completion]:
        return {each.id: each for each in of.complete(model, requests, Greedy(), max_new_tokens, stop_ids, lambda _: None)}

    ours, theirs = answers(engine), answers(Transformers(batch_size=1))
    differing = [request for request in requests if ours[request.id] != theirs[request.id]]
    found = tuple(_difference(model, request, theirs[request.id], ours[request.id], stop_ids) for request in differing)
    return Parity(len(requests) - len(found), found)


def _difference(model: PreTrainedModel, request: Request, expected: Completion, found: Completion, stop_ids: frozenset[int]) -> Difference:
    import torch

    pairs = zip(expected.token_ids, found.token_ids, strict=False)
    shorter = min(len(expected.token_ids), len(found.token_ids))
    place = next((n for n, (one, other) in enumerate(pairs) if one != other), shorter)
    with torch.no_grad():
        ids = torch.tensor([[*request.prompt_ids, *expected.token_ids[:place]]])
        logits_V: Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()

    def token(answer: Completion) -> int:
        ends = sorted(stop_ids)
        return answer.token_ids[place] if place < len(answer.token_ids) else ends[int(logits_V[ends].argmax())]

    one, other = token(expected), token(found)
    return Difference(request.id, place, one, other, float(logits_V[one]), float(logits_V[other]))
