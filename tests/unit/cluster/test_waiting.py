"""Long waits in plain lines: what for, how long already, how far, what is usual; told while the waiting one is blocked."""

import threading
import time

import pytest

from cluster import waiting
from cluster.waiting import Pending, wait_in_lines


def test_a_line_comes_while_the_waiting_one_is_blocked() -> None:
    said: list[str] = []
    told = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        told.set()

    with wait_in_lines(say, every_s=0.02)("the engines", "about a minute") as note:
        note("3 of 4 engines serve")
        assert told.wait(5.0)
    assert said[0] == "waiting for the engines: 3 of 4 engines serve; 0 s so far (about a minute)"
    count = len(said)
    time.sleep(0.1)
    assert len(said) == count, "it is over, and so are its lines"
    assert threading.active_count() == len([t for t in threading.enumerate() if t.name != "waiting"])


def test_a_short_wait_says_nothing_and_a_long_one_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with wait_in_lines(said.append)("Ray", ""):
        pass
    assert said == []
    monkeypatch.setattr(waiting, "TOLD_S", 0.0)
    with wait_in_lines(said.append)("Ray", ""):
        pass
    assert said == ["waited 0 s for Ray"]
    with pytest.raises(ValueError), wait_in_lines(said.append)("the engines", ""):
        raise ValueError
    assert len(said) == 1, "what failed says itself why"


def test_what_is_not_known_is_left_out() -> None:
    assert Pending("Ray", "").describe() == "waiting for Ray: 0 s so far"
