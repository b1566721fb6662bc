"""Gathering takes a share of what one thing takes, within bounds; pauses double up to theirs, however many there were."""

import pytest

from protocol.pace import Pace, backoff_s


def settled(pace: Pace, took_s: float) -> Pace:
    for _ in range(500):
        pace.note(took_s)
    return pace


@pytest.mark.parametrize(
    ("took_s", "longer", "waits"), [(0.1, 1.0, 0.02), (10.0, 1.0, 0.1), (10.0, 3.0, 0.3), (99.0, 1.0, 0.5)]
)
def test_a_share_within_bounds(took_s: float, longer: float, waits: float) -> None:
    assert settled(Pace(0.02, 0.5, 0.01), took_s).wait_s(longer) == pytest.approx(waits)


def test_before_anything_is_known_the_least() -> None:
    assert Pace(0.02, 0.5, 0.01).wait_s(3.0) == 0.02


def test_one_that_took_long_hardly_moves_it() -> None:
    pace = settled(Pace(0.0, 9.0, 1.0), 1.0)
    pace.note(2.0)
    assert pace.wait_s() == pytest.approx(1.05)


@pytest.mark.parametrize(("failures", "pause_s"), [(0, 5), (1, 10), (3, 40), (4, 60), (5000, 60)])
def test_pauses_double_up_to_a_bound(failures: int, pause_s: float) -> None:
    assert backoff_s(5.0, 60.0, failures) == pause_s
