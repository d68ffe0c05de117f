"""How the rows of a step are shared among ranks, and what the ranks then have in common: totals and the gradient's norm."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from campana.core.ranks import reason
from campana.tuning.ranks import Ranks
from campana.tuning.sharding import clip_
from campana.tuning.shares import filler, plan_passes, share_of


def rows_of(lengths: list[int]) -> list[Any]:
    return [(np.arange(4, 4 + n, dtype=np.int32), np.arange(n) > 0) for n in lengths]


@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=40), budget=st.integers(10, 120), count=st.integers(2, 5), alone=st.booleans()
)
def test_every_row_is_in_one_pack_and_no_pack_is_too_long(lengths: list[int], budget: int, count: int, alone: bool) -> None:
    plan = plan_passes(lengths, budget, count, alone=alone)
    packs = [members for each in plan for members in each]
    assert all(len(each) == count for each in plan)
    assert sorted(i for members in packs for i in members) == list(range(len(lengths)))
    assert all(len(members) <= 1 or sum(lengths[i] for i in members) <= max(budget, *lengths) for members in packs)
    assert not alone or all(len(members) <= 1 for members in packs)
    if not alone and len(plan) > 1:
        fewer = (len(plan) - 1) * count
        assert sum(lengths) > fewer * max(budget, *lengths) / 2, "more passes than can be needed"


@given(lengths=st.lists(st.integers(2, 30), min_size=1, max_size=30), count=st.integers(2, 4))
def test_the_ranks_packs_together_are_the_rows(lengths: list[int], count: int) -> None:
    rows = rows_of(lengths)
    shares = [share_of(rows, 50, Ranks(index, count)) for index in range(count)]
    assert len({len(share) for share in shares}) == 1, "as many passes each"
    assert sum(pack.num_row_tokens for share in shares for pack in share if pack is not None) == sum(lengths)
    alone = share_of(rows, 50, Ranks())
    supervised = [sum(p.targets.numel() for p in packs if p is not None) for packs in ([p for s in shares for p in s], alone)]
    assert supervised[0] == supervised[1]


def test_ranks_have_like_loads() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 400, 64).tolist()
    for count in (2, 4, 8):
        for each in plan_passes(lengths, 2048, count):
            loads = [sum(lengths[i] for i in members) for members in each]
            assert min(loads) > 0.7 * max(loads)


def test_a_filler_is_as_short_as_a_row_can_be_cut() -> None:
    ids = np.arange(4, 14, dtype=np.int32)
    supervised = np.array([False] * 6 + [True] * 4)
    pack = filler((ids, supervised))
    assert (pack.ids.tolist(), pack.targets.tolist()) == ([4, 5, 6, 7, 8, 9], [10])


@pytest.mark.parametrize("size", [0.1, 10.0])
def test_clipping_is_torch_s(size: float) -> None:
    def parameters() -> list[torch.nn.Parameter]:
        generator = torch.Generator().manual_seed(0)
        made = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((7, 5), (5,), (3, 3))]
        for parameter in made[:2]:
            parameter.grad = size * torch.randn(parameter.shape, generator=generator)
        return made

    ours, theirs = parameters(), parameters()
    norm = clip_(ours, 1.0, Ranks())
    assert norm == torch.nn.utils.clip_grad_norm_(theirs, 1.0).item()
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_the_rank_that_ended_first_is_told() -> None:
    lost = {"time": 2.0, "error": "RuntimeError: Connection closed by peer"}
    assert reason({0: 1, 1: -signal.SIGKILL}, {0: lost}).startswith("rank 1 was killed by SIGKILL\nhint: was the machine out of memory?")
    assert reason({0: 1, 1: 1}, {0: lost, 1: {"time": 1.0, "error": "rows are wrong"}}) == "rank 1: rows are wrong"
    assert reason({0: 1, 1: -signal.SIGTERM}, {0: {"time": 1.0, "error": "the disk is full"}}) == "the disk is full"
    assert reason({0: -signal.SIGTERM, 1: 3}, {}).startswith("rank 1 ended with code 3 and without a word")
    assert "SIGSEGV" in reason({0: -signal.SIGSEGV, 1: 1}, {1: lost})
