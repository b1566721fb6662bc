"""How fast an API may be asked, on a simulated clock."""

from collections.abc import Sequence
from email.utils import formatdate
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge.api.limits import BURST, PAUSE_MAX_S, RateLimits, parse_duration_s, retry_after_s, used_up_s


def admitted(limits: RateLimits, costs: Sequence[int], start: float) -> list[float]:
    """When each request of a queue enters, if each waits as it is told."""
    now, times = start, []
    for tokens in costs:
        while (wait := limits.admit(now, tokens)) > 0:
            now += wait
        times.append(now)
    return times


def most_in_a_minute(times: Sequence[float], units: Sequence[int]) -> int:
    return max(sum(u for t, u in zip(times, units, strict=True) if start <= t < start + 60) for start in times)


@given(limit=st.integers(1, 300), start=st.floats(0, 1e6))
def test_never_more_requests_in_any_minute_than_the_limit(limit: int, start: float) -> None:
    times = admitted(RateLimits(limit, None, start), [1] * (2 * limit + 3), start)
    assert most_in_a_minute(times, [1] * len(times)) <= limit


@given(limit=st.integers(1000, 10**6), shares=st.lists(st.floats(0.001, BURST), min_size=1, max_size=200))
def test_never_more_tokens_in_any_minute_than_the_limit(limit: int, shares: list[float]) -> None:
    costs = [int(limit * share) for share in shares]
    assert most_in_a_minute(admitted(RateLimits(None, limit, 0.0), costs, 0.0), costs) <= limit


@pytest.mark.parametrize("limit", [1, 2, 3, 60, 500])
def test_a_busy_queue_gets_at_least_three_quarters_of_the_limit(limit: int) -> None:
    times = admitted(RateLimits(limit, None, 0.0), [1] * (5 * limit + 1), 0.0)
    assert times[-1] <= 5 * 60 / 0.75 + 1


def test_a_burst_goes_out_at_once_and_what_follows_is_spread() -> None:
    times = admitted(RateLimits(60, None, 0.0), [1] * 20, 0.0)
    assert times[:15] == [0.0] * 15
    assert [b - a for a, b in pairwise(times[14:])] == pytest.approx([60 / 45] * 5)


def test_tokens_that_were_not_used_make_room_at_once() -> None:
    limits = RateLimits(None, 10_000, 0.0)
    assert limits.admit(0.0, 2500) == 0.0
    assert limits.admit(0.0, 1000) > 0.0
    limits.settle(2500, 500)
    assert limits.admit(0.0, 1000) == 0.0


def test_a_request_larger_than_the_bucket_is_admitted_when_it_is_full_and_paid_for_afterwards() -> None:
    limits = RateLimits(None, 1000, 0.0)
    first, second = admitted(limits, [5000, 10], 0.0)
    assert first == 0.0
    assert second == pytest.approx((5000 - 250 + 10) / (750 / 60))


def test_a_pause_holds_for_everybody_and_a_shorter_one_does_not_end_it() -> None:
    limits = RateLimits(None, None, 0.0)
    limits.pause(10.0, 30.0)
    limits.pause(11.0, 1.0)
    assert limits.admit(12.0, 1) == pytest.approx(28.0)
    assert limits.admit(40.0, 1) == 0.0


def test_a_pause_of_hours_is_looked_at_again_sooner() -> None:
    limits = RateLimits(None, None, 0.0)
    limits.pause(0.0, 86_400.0)
    assert limits.admit(0.0, 1) == PAUSE_MAX_S


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("1.5", 1.5), ("20ms", 0.02), ("6m0s", 360.0), ("1h2m", 3720.0), ("2m59.56s", 179.56), (" 7 ", 7.0)),
        *(("", 0.0), ("soon", 0.0), ("-3", 0.0), ("1x", 0.0), ("inf", 0.0), ("5s later", 0.0)),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


def test_retry_after_is_read_as_seconds_milliseconds_or_a_date() -> None:
    now = 1_000_000_000.0
    assert retry_after_s({"retry-after": "7"}, now) == 7.0
    assert retry_after_s({"retry-after-ms": "1500", "retry-after": "2"}, now) == 1.5
    assert retry_after_s({"retry-after": formatdate(now + 90, usegmt=True)}, now) == 90.0
    assert retry_after_s({"retry-after": formatdate(now - 90, usegmt=True)}, now) == 0.0
    assert retry_after_s({"retry-after": "whenever"}, now) == 0.0
    assert retry_after_s({}, now) == 0.0


def test_a_spent_allowance_is_waited_for() -> None:
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12s"}
    rest = {"x-ratelimit-remaining-tokens": "150", "x-ratelimit-reset-tokens": "1m"}
    assert used_up_s(spent | rest) == 12.0
    assert used_up_s(rest) == 0.0
    assert used_up_s({}) == 0.0
