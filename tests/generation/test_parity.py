"""Parity says which answers are the same, and of the others where they part and by how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from campana.generation.engine import Completion, Greedy, Request
from campana.generation.engines.packed import Packed
from campana.generation.engines.reference import Transformers
from campana.generation.parity import parity

REQUESTS = [Request(f"q{n}", tuple(range(4 + n, 9 + 2 * n))) for n in range(5)]
STOP = frozenset({2, 3})


class Wrong(Transformers):
    """The yardstick, but its second answer has another third token and its third ends after the first."""

    def complete(self, *arguments: Any, **more: Any) -> Iterator[Completion]:
        for each in super().complete(*arguments, **more):
            if each.id == "q1":
                tokens = each.token_ids
                yield Completion("q1", (*tokens[:2], (tokens[2] + 1) % 64 + 4, *tokens[3:]), each.finish)
            elif each.id == "q2":
                yield Completion("q2", each.token_ids[:1], "stop")
            else:
                yield each


@pytest.fixture(scope="module")
def model(models: Callable[[str], Any]) -> Any:
    return models("llama")


def test_the_packed_engine_is_at_parity(model: Any) -> None:
    found = parity(Packed.model_validate({}), model, REQUESTS, max_new_tokens=12, stop_ids=STOP)
    assert found.num_same + len(found.differences) == len(REQUESTS)
    assert found.largest_gap < 1e-4


def test_differences_name_the_place_both_tokens_and_both_logits(model: Any) -> None:
    found = parity(Wrong(batch_size=1), model, REQUESTS, max_new_tokens=12, stop_ids=STOP)
    assert found.num_same == 3
    other, ended = found.differences
    assert (other.id, other.place) == ("q1", 2)
    assert (ended.id, ended.place) == ("q2", 1)
    assert ended.found in STOP
    answer = next(iter(Transformers(batch_size=1).complete(model, [REQUESTS[1]], Greedy(), 12, STOP, lambda _: None))).token_ids
    with torch.no_grad():
        logits = model(torch.tensor([[*REQUESTS[1].prompt_ids, *answer[:2]]])).logits[0, -1]
    assert other.expected == answer[2] == int(logits.argmax())
    assert other.expected_logit == pytest.approx(float(logits[other.expected]), abs=1e-5)
    assert other.found_logit == pytest.approx(float(logits[other.found]), abs=1e-5)
    assert found.largest_gap == max(other.gap, ended.gap) > 0
