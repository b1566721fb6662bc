"""The stubs of the benchmarks take as long as they say, and hold no more than their places."""

import asyncio
from statistics import fmean

import pytest

from tests.benchmarks.stubs import Places, duration, list_factors


def test_a_seed_takes_the_same_time_whoever_plays_it_and_the_mean_is_the_one_that_was_asked_for() -> None:
    assert duration(7, 6.0) == duration(7, 6.0) != duration(8, 6.0)
    assert duration(7, 0.0) == 0.0
    assert fmean(list_factors()) == pytest.approx(1.0, abs=0.02)


async def test_who_finds_no_place_waits_for_one() -> None:
    places = Places(2)
    first, second, third = places.hold(0.0), places.hold(60.0), places.hold(0.0)
    await first
    await asyncio.wait_for(third, 5.0)  # it got the first one's
    fourth = places.hold(0.0)
    await asyncio.wait_for(fourth, 5.0)
    assert not second.done()
    places.give_up(second)


async def test_what_is_given_up_gives_its_place_back_and_one_that_waited_takes_none() -> None:
    places = Places(1)
    held, waiting, last = places.hold(60.0), places.hold(60.0), places.hold(0.0)
    places.give_up(waiting)
    places.give_up(held)
    await asyncio.wait_for(last, 5.0)
    assert held.cancelled() and waiting.cancelled()
    await asyncio.wait_for(places.hold(0.0), 5.0)


async def test_one_that_ended_gives_its_place_back_once() -> None:
    places = Places(1)
    ended = places.hold(0.0)
    await ended
    places.give_up(ended)
    held, waiting = places.hold(60.0), places.hold(0.0)
    await asyncio.sleep(0.05)
    assert not waiting.done(), "there is one place"
    places.give_up(held)
    await asyncio.wait_for(waiting, 5.0)
