"""The choice of a token: the first of the largest, or a draw from the right distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campana.errors import ModelError
from campana.generation.engine import Greedy, Sample
from campana.generation.sampling import choose, greedy, sample, uniform


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([5, 1024, 2048, 2500, 3000]), st.integers(1, 4))
def test_greedy_is_argmax_in_every_layout_and_takes_the_first_of_equals(seed: int, num_rows: int, vocab: int, levels: int) -> None:
    logits_RV = torch.randint(0, levels, (num_rows, vocab), generator=torch.Generator().manual_seed(seed)).float()
    expected = [row.index(max(row)) for row in logits_RV.tolist()]
    assert greedy(logits_RV) == expected
    assert greedy(logits_RV.t().contiguous().t()) == expected


def test_logits_that_are_not_numbers_are_an_error() -> None:
    for layout in (torch.zeros(2, 3000), torch.zeros(3000, 2).t()):
        for place in (7, 2999):
            logits = layout.clone(memory_format=torch.preserve_format)
            logits[1, place] = float("nan")
            for sampling in (Greedy(), Sample(seed=0)):
                with pytest.raises(ModelError, match="not numbers"):
                    choose(logits, sampling, ["a", "b"], [0, 0])


@pytest.mark.parametrize(
    "sampling",
    [
        Sample(seed=0, temperature=0.7),
        Sample(seed=0, top_k=9),
        Sample(seed=0, top_p=0.8),
        Sample(seed=0, top_k=30, top_p=0.6, temperature=2.0),
    ],
)
def test_draws_have_the_distribution_of_transformers_warpers(sampling: Sample) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(1)) * 2
    expected = TemperatureLogitsWarper(sampling.temperature)(None, logits)  # type: ignore[arg-type]  # the ids are not read
    if sampling.top_k is not None:
        expected = TopKLogitsWarper(sampling.top_k)(None, expected)  # type: ignore[arg-type]
    if sampling.top_p < 1:
        expected = TopPLogitsWarper(sampling.top_p)(None, expected)  # type: ignore[arg-type]
    probabilities = expected.double().softmax(-1)[0]
    num_draws = 2000  # evenly spaced: the inverse of the distribution function gives each token its share to within two draws
    counts = torch.zeros(50, dtype=torch.float64)
    for draw in range(num_draws):
        counts[sample(logits[0], sampling, (draw + 0.5) / num_draws)] += 1
    assert torch.all((counts / num_draws - probabilities).abs() < 2.0 / num_draws)


def test_a_flat_distribution_keeps_more_than_the_first_guess() -> None:
    found = [sample(torch.zeros(5000), Sample(seed=0, top_p=0.89999), (draw + 0.5) / 100) for draw in range(100)]
    assert found == [45 * draw + 22 for draw in range(100)], "4,500 of 5,000 equal tokens, each with its share"


def test_the_ends_of_a_draw_stay_inside() -> None:
    logits = torch.tensor([0.0, 1.0, -50.0])
    for sampling in (Sample(seed=0), Sample(seed=0, top_p=1e-9), Sample(seed=0, top_k=100)):
        assert {sample(logits, sampling, draw) for draw in (0.0, 1 - 2.0**-53)} <= {0, 1, 2}
    assert sample(logits, Sample(seed=0, top_p=1e-9), 0.99) == sample(logits, Sample(seed=0, top_k=1), 0.99) == 1


def test_uniform_numbers_depend_on_seed_request_and_draw_alone() -> None:
    drawn = [uniform(seed, name, draw) for seed in range(4) for name in ("a", "b", "a#0") for draw in range(50)]
    assert drawn == [uniform(seed, name, draw) for seed in range(4) for name in ("a", "b", "a#0") for draw in range(50)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= value < 1 for value in drawn)
    assert abs(sum(drawn) / len(drawn) - 0.5) < 0.05
    assert uniform(0, "a", 0) == 0.5371469768340608, "a stored answer's random numbers never change"
