"""When a model or judge is given up, and which failures are final."""

import pytest

from cluster.measure.suites.breaker import IN_A_ROW, Breaker


def test_who_refuses_from_the_start_is_given_up_at_once() -> None:
    assert Breaker().note_failure("key refused (401)", permanent=True) == "stop"


def test_who_has_answered_may_refuse_once_in_a_while() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.note_answer()
        assert breaker.note_failure("request refused (400)", permanent=True) == "leave"


def test_an_outage_is_given_up_after_some_failures_in_a_row() -> None:
    breaker = Breaker()
    breaker.note_answer()
    assert [breaker.note_failure("rate limited", False) for _ in range(IN_A_ROW)] == ["leave"] * (IN_A_ROW - 1) + [
        "stop"
    ]


@pytest.mark.parametrize("reason", ["prompt too long", "content filtered", "gave up: content filtered"])
def test_what_is_the_prompts_own_is_kept_and_gives_nobody_up(reason: str) -> None:
    breaker = Breaker()
    assert [breaker.note_failure(reason, True) for _ in range(20)] == ["keep"] * 20
