"""The promise of a 95% interval, by simulation. The settings and the whole table are in benchmarks/coverage.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "coverage.py"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("coverage_simulation", SOURCE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_cover_within_the_error_of_few_replicates(simulation, seeds) -> None:
    found = simulation.coverage(simulation.Setting(True, 0.6, 0.03, (10,) * 9, seeds, 0.1), "macro", 300)
    assert 0.91 <= found.mean <= 0.985
    assert 0.91 <= found.difference <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize(
    ("binary", "level", "gap", "shape", "seeds", "luck", "average"),
    [
        (True, 0.6, 0.03, "30", 1, 0.1, "macro"),
        (True, 0.6, 0.03, "30", 2, 0.1, "macro"),
        (True, 0.6, 0.03, "30", 3, 0.2, "macro"),
        (False, 0.6, 0.03, "30", 3, 0.1, "macro"),
        (False, 0.6, 0.03, "100", 5, 0.1, "macro"),
        (True, 0.98, 0.01, "30", 3, 0.1, "macro"),
        (True, 0.6, 0.03, "BELLE", 3, 0.1, "micro"),
    ],
)
def test_intervals_cover_93_to_97_percent(simulation, binary, level, gap, shape, seeds, luck, average) -> None:
    sizes = simulation.BELLE if shape == "BELLE" else (int(shape),) * 9
    found = simulation.coverage(simulation.Setting(binary, level, gap, sizes, seeds, luck), average, 2000, seed=11)
    assert 0.93 <= found.mean <= 0.97
    assert 0.93 <= found.difference <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "floor"), [(2, 0.89), (3, 0.92)])
def test_where_luck_rules_and_seeds_are_few_intervals_cover_no_less_than_documented(simulation, seeds, floor) -> None:
    found = simulation.coverage(simulation.Setting(True, 0.6, 0.03, (30,) * 9, seeds, 0.3), "macro", 2000, seed=11)
    assert found.mean >= floor
    assert found.difference >= floor


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "luck", "size"), [(3, 0.1, 30), (3, 0.1, 100), (3, 0.3, 30), (5, 0.3, 30)])
def test_comparisons_of_equal_arms_are_rarely_called_different(simulation, seeds, luck, size) -> None:
    assert simulation.family_wise_error(250, seeds, luck, size, seed=5) <= 0.08  # 0.05 and two Monte Carlo errors
