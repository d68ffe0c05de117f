"""The learning rate with the lowest held-out loss, among trials of equal budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from campana.errors import StageFailed, StudyError
from campana.tuning.selection import read_selected, select

RATES = (1e-5, 1e-4, 1e-3)


def trials(folder: Path, losses: list[float | None], **changes: Any) -> dict[str, Path]:
    """Trial folders; a loss of None is a trial that diverged."""
    made: dict[str, Path] = {}
    for index, loss in enumerate(losses):
        path = folder / f"trial{index}"
        path.mkdir(parents=True)
        result = {
            "schema": "campana.tune/1",
            "steps": 10,
            "tokens": 1000,
            "learning_rate": RATES[index],
            "initial_validation_loss": 3.0,
            "final_validation_loss": loss,
            "flops": 5,
            "diverged": {"step": 4, "reason": "the loss is not a number"} if loss is None else None,
        }
        (path / "tune.json").write_text(json.dumps({**result, **(changes if index == 1 else {})}))
        made[str(index)] = path
    return made


def selected(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "selected.json").read_text())


def test_the_lowest_loss_wins(tmp_path: Path) -> None:
    meter = select(RATES, trials(tmp_path, [2.5, 2.0, 2.2]), tmp_path / "out")
    result = selected(tmp_path / "out")
    assert read_selected(tmp_path / "out") == 1e-4
    assert result["schema"] == "campana.selected/1"
    assert [row["validation_loss"] for row in result["losses"]] == [2.5, 2.0, 2.2]
    assert result["at_edge"] is None
    assert result["not_better"] is None
    assert (meter["trials"], meter["trial_tokens"], meter["trial_flops"], meter["warnings"]) == (3, 3000, 15, [])


@pytest.mark.parametrize(("losses", "said"), [([1.0, 2.0, 3.0], "lower ones"), ([3.0, 2.0, 1.0], "higher ones")])
def test_the_edge_of_the_grid_is_told(tmp_path: Path, losses: list[float | None], said: str) -> None:
    meter = select(RATES, trials(tmp_path, losses), tmp_path / "out")
    assert said in selected(tmp_path / "out")["at_edge"]
    assert meter["warnings"] == [selected(tmp_path / "out")["at_edge"]]


def test_a_diverged_trial_is_listed_and_bounds_the_search(tmp_path: Path) -> None:
    select(RATES, trials(tmp_path, [2.5, 2.0, None]), tmp_path / "out")
    result = selected(tmp_path / "out")
    assert result["chosen"] == 1e-4
    assert result["diverged"] == [{"learning_rate": 1e-3, "step": 4, "reason": "the loss is not a number"}]
    assert result["at_edge"] is None


def test_a_tie_goes_to_the_milder_rate(tmp_path: Path) -> None:
    select(RATES, trials(tmp_path, [2.0, 2.0, 2.5]), tmp_path / "out")
    assert selected(tmp_path / "out")["chosen"] == 1e-5


def test_a_search_that_found_nothing_better_says_so(tmp_path: Path) -> None:
    select(RATES, trials(tmp_path, [3.2, 3.1, 3.3]), tmp_path / "out")
    assert "did not lower the held-out loss" in selected(tmp_path / "out")["not_better"]


def test_all_diverged_fails_with_rates_to_try(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"all 3 learning rates diverged[\s\S]*1e-06"):
        select(RATES, trials(tmp_path, [None, None, None]), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 11}, "unequal budgets"),
        ({"tokens": 999}, "unequal budgets"),
        ({"final_validation_loss": None}, "no held-out loss"),
        ({"learning_rate": 5e-4}, "the trial ran at 0.0005"),
        ({"schema": "campana.tune/9"}, "campana.tune/9"),
    ],
)
def test_trials_that_cannot_be_compared_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        select(RATES, trials(tmp_path, [2.5, 2.0, 2.2], **changes), tmp_path / "out")


def test_a_missing_trial_and_a_foreign_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no trial was given for learning rate 0\.001"):
        select(RATES, trials(tmp_path, [2.5, 2.0]), tmp_path / "out")
    (tmp_path / "selected.json").write_text('{"schema": "other/1", "chosen": 1}')
    with pytest.raises(StudyError, match="other/1"):
        read_selected(tmp_path)
