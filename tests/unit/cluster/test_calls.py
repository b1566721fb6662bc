"""Asking an actor until a deadline: what is tried again, what is raised, and what the error says. The clock is a fake."""

import asyncio
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    OwnerDiedError,
    RayError,
    RayTaskError,
)

from cluster import calls
from cluster.calls import AWAY, Attempts, NamedActor, Unavailable, ask, ask_blocking, find_mistake
from protocol.errors import UserError


def away() -> ActorUnavailableError:
    return ActorUnavailableError("restarting", b"\0" * 16)


def raised_by_method(cause: Exception) -> Exception:
    """As Ray hands over what a method raised: also an instance of the cause's class."""
    error: Exception = RayTaskError("publish", "traceback", cause).as_instanceof_cause()
    return error


class Clock:
    """Seconds that pass when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


def attempts(clock: Clock, limit_s: float, errors: tuple[type[RayError], ...] = AWAY) -> Attempts:
    return Attempts("replay-0", "deal", limit_s, errors, pause_s=0.5, clock=clock)


def test_an_actor_that_is_away_is_asked_again_until_the_pause_would_pass_the_deadline() -> None:
    clock, tries = Clock(), 0
    rule = attempts(clock, 2.0)
    with pytest.raises(Unavailable):
        while True:
            tries += 1
            clock.wait(rule.pause_after(away()))
    assert tries == 5 and clock.now_s == 102.0  # at 0, .5, 1, 1.5 and 2 s


def test_time_spent_in_an_attempt_counts() -> None:
    clock = Clock()
    rule = attempts(clock, 2.0)
    clock.wait(1.6)
    assert rule.left_s() == pytest.approx(0.4)
    with pytest.raises(Unavailable) as given_up:
        rule.pause_after(away())
    assert isinstance(given_up.value.__cause__, ActorUnavailableError)
    clock.wait(5.0)
    assert rule.left_s() == 0.0


@pytest.mark.parametrize("late", [TimeoutError(), GetTimeoutError("late")])
def test_an_attempt_without_an_answer_in_time_is_the_last(late: Exception) -> None:
    with pytest.raises(
        Unavailable, match=r"^replay-0: no answer to deal within 60 s; see logs/replay-0\.log$"
    ) as given_up:
        attempts(Clock(), 60.0).pause_after(late)
    assert given_up.value.__cause__ is late


@pytest.mark.parametrize("cause", [FileNotFoundError("gone"), TimeoutError("its own deadline")])
def test_what_the_method_raised_is_raised_and_not_tried_again(cause: Exception) -> None:
    error = raised_by_method(cause)
    with pytest.raises(type(cause)) as raised:
        attempts(Clock(), 60.0).pause_after(error)
    assert raised.value is error


def test_a_lost_object_is_tried_again_only_by_those_who_ask_for_it() -> None:
    lost = OwnerDiedError("00" * 28, None, "")
    with pytest.raises(OwnerDiedError):
        attempts(Clock(), 60.0).pause_after(lost)
    assert attempts(Clock(), 60.0, (*AWAY, OwnerDiedError)).pause_after(lost) == 0.5


def test_the_error_is_the_same_on_the_other_side_of_a_process_boundary() -> None:
    error = Unavailable("publisher-0", "publish", 120.0)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


class Actor:
    """Gives its answers in order; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[tuple[Any, ...]]()
        self.deal = SimpleNamespace(remote=self._ask)

    def _ask(self, *args: Any) -> Any:
        self.asked.append(args)
        answer = self.answers.pop(0)

        async def reply() -> Any:
            if isinstance(answer, Exception):
                raise answer
            return await answer() if callable(answer) else answer

        return reply()


@pytest.fixture
def get(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray.get` of an `Actor`'s reply, and no pauses."""

    def run(reply: Any, timeout: float) -> Any:
        assert timeout > 0
        return asyncio.run(reply)

    monkeypatch.setattr(ray, "get", run)
    monkeypatch.setattr(calls.time, "sleep", lambda _: None)


async def ask_deal(actor: Actor, limit_s: float = 5.0) -> Any:
    return await ask(actor, "deal", 7, part="replay-0", limit_s=limit_s, pause_s=0.01)


async def test_the_same_question_is_put_again_and_its_answer_given() -> None:
    actor = Actor(away(), ActorDiedError(), "games")
    assert await ask_deal(actor) == "games" and actor.asked == [(7,)] * 3


async def test_an_actor_that_hangs_is_given_up_at_the_deadline() -> None:
    with pytest.raises(Unavailable):
        await ask_deal(Actor(lambda: asyncio.sleep(60)), limit_s=0.05)


async def test_a_caller_that_is_cancelled_asks_no_more() -> None:
    actor = Actor(lambda: asyncio.sleep(60), "never")
    task = asyncio.create_task(ask_deal(actor))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(actor.asked) == 1


@pytest.mark.usefixtures("get")
def test_a_thread_asks_again_and_fetches_what_the_answer_names() -> None:
    actor, left = Actor(away(), ["old"], ["new"]), list[float]()

    def fetch(answer: list[str], left_s: float) -> str:
        left.append(left_s)
        if answer == ["old"]:
            raise OwnerDiedError("00" * 28, None, "")
        return answer[0]

    errors = (*AWAY, OwnerDiedError)
    assert ask_blocking(actor, "deal", 7, part="replay-0", limit_s=5.0, away=errors, fetch=fetch) == "new"
    assert len(actor.asked) == 3 and all(0 < s <= 5 for s in left)


@pytest.mark.usefixtures("get")
@pytest.mark.parametrize(
    ("answer", "expected"), [(raised_by_method(ValueError("no")), ValueError), (GetTimeoutError("late"), Unavailable)]
)
def test_a_thread_is_told_what_the_method_raised_or_that_there_was_no_answer(answer: Any, expected: Any) -> None:
    with pytest.raises(expected):
        ask_blocking(Actor(answer), "deal", part="replay-0", limit_s=5.0)


def test_a_named_actor_is_looked_up_once_and_travels_as_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def get_actor(name: str, namespace: str) -> Any:
        looked_up.append(f"{namespace}:{name}")
        return SimpleNamespace(deal="the method")

    monkeypatch.setattr(ray, "get_actor", get_actor)
    travelled: Callable[[], Any] = pickle.loads(pickle.dumps(NamedActor("test-calls/replay-0")))
    assert travelled.deal == travelled.deal == "the method"  # type: ignore[attr-defined]
    assert looked_up == ["advgame:test-calls/replay-0"]


def died_over(text: str) -> ActorDiedError:
    """As Ray says that an actor's constructor raised, with the end of the traceback that it quotes."""
    return ActorDiedError(RayTaskError("__init__", text, ValueError(), actor_id="1f"))


def test_a_users_mistake_is_found_in_what_became_of_it() -> None:
    mistake = UserError("seeds.train: empty; add a line")
    died = died_over("trace\nprotocol.errors.UserError: x; y")
    wrapped = RuntimeError("no start")
    wrapped.__cause__ = mistake
    found = [find_mistake(error) for error in (mistake, raised_by_method(mistake), wrapped, died)]
    assert [str(one) for one in found] == [str(mistake)] * 3 + ["x; y"]
    assert find_mistake(died_over("trace\nValueError: says UserError: by chance")) is None
    assert find_mistake(raised_by_method(ValueError("protocol.errors.UserError: x"))) is None
