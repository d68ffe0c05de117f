"""A training run that is asked to end saves what it has done first; one that is asked twice does not wait."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from campana.tuning.ending import SIGNALS, Ending

pytestmark = pytest.mark.usefixtures("hears_ctrl_c")


def asked(steps: list[str], times: int = 1, error: Exception | None = None) -> None:
    """A loop's step that is interrupted so often, and then saves."""
    with Ending() as ending:
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        if error is not None:
            raise error
        steps.append(f"done, asked: {ending.is_asked}")
        ending.obey()
        steps.append("another")


def test_what_the_signal_would_have_done_is_done_when_the_loop_obeys() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        asked(steps)
    assert steps == ["done, asked: True"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_loop_that_is_over_obeys_too() -> None:
    with pytest.raises(KeyboardInterrupt), Ending():
        signal.raise_signal(signal.SIGINT)


def test_asked_twice_it_ends_at_once() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        asked(steps, times=2)
    assert steps == []


def test_a_second_sigterm_may_come_from_the_same_stop() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with Ending() as ending:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
            ending.obey()
            assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_is_not_hidden_by_a_signal() -> None:
    with pytest.raises(ValueError, match="broken"):
        asked([], error=ValueError("broken"))


def test_nobody_asked() -> None:
    steps: list[str] = []
    asked(steps, times=0)
    assert steps == ["done, asked: False", "another"]


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Ending() as ending:
        assert [signal.getsignal(number) for number in SIGNALS] != before
        ending.obey()
        assert [signal.getsignal(number) for number in SIGNALS] != before, "nobody has asked"
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_the_process_ignores_is_not_heard() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Ending() as ending:
        signal.raise_signal(signal.SIGINT)
        assert not ending.is_asked
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_nothing_is_changed_where_it_is_not_heeded_and_in_other_threads() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Ending(heeded=False):
        assert [signal.getsignal(number) for number in SIGNALS] == before
    found: list[bool] = []

    def run() -> None:
        with Ending() as ending:
            found.append(ending.is_asked)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_the_process_ends_by_the_signal_that_it_was_sent() -> None:
    script = """
import signal
from campana.tuning.ending import Ending
with Ending() as ending:
    signal.raise_signal(signal.SIGTERM)
    print("saved", flush=True)
    ending.obey()
    print("never")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "saved\n")
