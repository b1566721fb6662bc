"""The learner ranks' side of a lease: the table is fetched from the object store, and asked for again when its owner died."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, OwnerDiedError

from cluster import calls
from cluster.calls import Unavailable
from cluster.replay.client import BatchClient


class Store:
    """What `ray.get` gives for each thing that is asked of it, in order; an exception is raised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.answers, self.asked = list(answers), list[Any]()
        monkeypatch.setattr(ray, "get", self.get)
        monkeypatch.setattr(calls.time, "sleep", lambda _: None)

    def get(self, what: Any, timeout: float) -> Any:
        assert timeout > 0
        self.asked.append(what)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


HANDLE = SimpleNamespace(lease=SimpleNamespace(remote=lambda *args: ("lease", *args)))
CALL = ("lease", "attacker", 3, 2, 8, 1.0)


def lease(restart_s: float = 5.0) -> Any:
    return BatchClient(HANDLE, restart_s).lease("attacker", 3, 2, 8, 1.0)


def lost() -> OwnerDiedError:
    return OwnerDiedError("00" * 28, None, "")


def test_the_reference_in_the_answer_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch, ["reference"], "table")
    assert lease() == "table" and store.asked == [CALL, "reference"]


def test_no_games_in_time_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch, None)
    assert lease() is None and store.asked == [CALL]


def test_a_table_whose_owner_died_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ActorUnavailableError("restarting", b"\0" * 16)
    store = Store(monkeypatch, ["old"], lost(), gone, ["new"], "table")
    assert lease() == "table" and store.asked == [CALL, "old", CALL, CALL, "new"]


@pytest.mark.parametrize("fault", [lost, lambda: GetTimeoutError("late")])
def test_a_table_that_does_not_come_is_given_up_at_the_deadline(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(monkeypatch, *[answer for _ in range(1000) for answer in (["old"], fault())])
    with pytest.raises(Unavailable, match="no answer to lease within"):
        lease(restart_s=-0.9)
