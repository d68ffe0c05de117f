"""Time left is told from what was done since the first report."""

from __future__ import annotations

import pytest

from campana.cli.pace import Pace, clock


class Watch:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_work_of_an_earlier_sitting_is_no_pace() -> None:
    watch = Watch()
    pace = Pace(watch)
    assert pace.seconds_left(900, 1600) is None
    watch.seconds += 10
    assert pace.seconds_left(920, 1600) == pytest.approx(340)
    assert pace.told(920, 1600, "steps", {"loss": 0.5, "tokens_per_second": 1234.5}) == (
        " 57% of 1,600 steps  loss 0.5  tokens per second 1,234  5:40 left"
    )


@pytest.mark.parametrize(("done", "seconds"), [(10, 1.0), (0, 60.0), (100, 60.0)], ids=["too soon", "nothing done", "all done"])
def test_nothing_is_told_while_nobody_can_say(done: float, seconds: float) -> None:
    watch = Watch()
    pace = Pace(watch)
    pace.seconds_left(0, 100)
    watch.seconds += seconds
    assert pace.seconds_left(done, 100) is None
    assert "left" not in pace.told(done, 100, "answers", {})


def test_work_without_a_known_total_has_no_share() -> None:
    assert Pace(Watch()).told(3, 0, "steps", {"phase": "probe"}) == "  0% of 0 steps  phase probe"


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3_661, "1:01:01")])
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
