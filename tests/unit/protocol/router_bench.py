"""A router, its clock and the calls that are out, for the tests of its decisions in virtual time."""

from collections.abc import Iterable

from protocol.exchange import Answer, Replies, Vitals
from protocol.router import Router
from protocol.router_state import Exchange

HEDGE_S = 4.0
READY = Vitals(ready=True)


class Bench:
    """A router, its clock, and the calls that are out."""

    def __init__(self, workers: int = 2, share: tuple[int, int] = (0, 1)) -> None:
        self.router = Router(workers, HEDGE_S, 0.0, share)
        self.now_s = 0.0
        self.out: list[Exchange] = []
        self.made: list[Exchange] = []
        self.expired: list[int] = []
        self.condemned: list[int] = []

    def add(self, ask: int, questions: int = 1, **limits: float) -> list[Exchange]:
        self.router.add(ask, questions, self.now_s, **limits)
        return self.decide()

    def decide(self) -> list[Exchange]:
        decisions = self.router.decide(self.now_s)
        self.out += decisions.exchanges
        self.made += decisions.exchanges
        self.expired += decisions.expired
        self.condemned += decisions.condemned
        return list(decisions.exchanges)

    def wait(self, seconds: float) -> list[Exchange]:
        """Time passes, and a look is taken as often as the router wants."""
        end_s, made = self.now_s + seconds, []
        while self.now_s < end_s - 1e-9:
            self.now_s = min(end_s, self.now_s + self.router.look_s)
            made += self.decide()
        return made

    def reply(
        self,
        worker: int,
        vitals: Vitals = READY,
        answers: Iterable[Answer] = (),
        begun: Iterable[int] = (),
        held: Iterable[int] = (),
    ) -> list[Answer]:
        """The worker's oldest call comes back."""
        call = next(call for call in self.out if call.worker == worker)
        self.out.remove(call)
        return self.router.note_reply(
            worker, call.number, Replies(vitals, tuple(answers), tuple(begun), tuple(held)), self.now_s
        )

    def gone(self, worker: int) -> None:
        call = next(call for call in self.out if call.worker == worker)
        self.out.remove(call)
        self.router.note_gone(worker, call.number, self.now_s)


def asked(calls: Iterable[Exchange]) -> dict[int, tuple[int, ...]]:
    """By worker, the asks that go to it."""
    return {call.worker: call.asks for call in calls if call.asks}


def given_up(calls: Iterable[Exchange]) -> dict[int, tuple[int, ...]]:
    return {call.worker: call.given_up for call in calls if call.given_up}
