"""What prompts share, and which of them a pass reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from campana.generation.schedule import WORTHWHILE, pack_size, shared_ids

prompts = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple), min_size=1, max_size=5)


@given(prompts, st.integers(0, 300))
def test_all_prompts_begin_with_what_they_share_and_go_on(each: list[tuple[int, ...]], more: int) -> None:
    asked = [(*[7] * more, *prompt) for prompt in each] * 3
    shared = shared_ids(asked)
    assert all(prompt[: len(shared)] == shared and len(prompt) > len(shared) for prompt in asked)
    if shared:
        assert len(shared) * (len(asked) - 1) >= WORTHWHILE
        at = len(shared)
        assert any(len(prompt) == at + 1 for prompt in asked) or len({prompt[at] for prompt in asked}) == 2, "no longer one is shared"
    elif more * (len(asked) - 1) >= WORTHWHILE:
        raise AssertionError("it would have saved more than a pass")


def test_one_prompt_shares_nothing() -> None:
    assert shared_ids([tuple(range(1000))]) == ()


def test_a_pass_reads_what_fits_and_is_worth_it() -> None:
    assert pack_size([100, 100, 100], 5, 250, has_rows=True) == 2, "the third is over the budget"
    assert pack_size([900, 10], 2, 250, has_rows=True) == 1, "one that is longer than the budget has a pass of its own"
    assert pack_size([100, 100], 5, 250, has_rows=True) == 0, "places for too few"
    assert pack_size([100, 100], 5, 250, has_rows=False) == 2, "nothing else is under way"
    assert pack_size([100, 100], 2, 250, has_rows=True) == 2, "no more are waiting"
    assert pack_size([], 5, 250, has_rows=True) == 0
