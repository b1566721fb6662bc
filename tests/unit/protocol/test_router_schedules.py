"""What holds of the router whatever the workers do: random schedules in virtual time."""

import random

import pytest

from protocol.exchange import Answer, Replies, Vitals, WorkerFault
from protocol.router import HOLDERS, MAX_LOSSES, Router
from protocol.router_state import Exchange
from tests.unit.protocol.router_bench import HEDGE_S


class Process:
    """A worker that does what chance says. Its books are the truth that the router's are held against."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.state = "ready"  # starting, hung, dead
        self.said_ready = True
        self.running: dict[int, int] = {}
        self.answers: list[Answer] = []
        self.steps = 0

    def restart(self, state: str) -> None:
        self.state = state
        self.running, self.answers = {}, []

    def take(self, call: Exchange, questions: dict[int, int]) -> None:
        for ask in call.given_up:
            self.running.pop(ask, None)
        for ask in call.asks:
            self.running.setdefault(ask, questions[ask])

    def work(self, sound: bool) -> None:
        if self.state != "ready":
            return
        self.steps += 1
        for ask in list(self.running):
            if self.chance.random() < 0.2:
                del self.running[ask]
                fault = not sound and self.chance.random() < 0.2
                self.answers.append(Answer(ask, ask, WorkerFault("x") if fault else None))

    def vitals(self) -> Vitals:
        if self.state != "ready":
            return Vitals(starting=True)
        return Vitals(True, running=sum(self.running.values()), steps=self.steps)


class World:
    """A router over such workers, in virtual time."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_s = 0.0
        self.processes = [Process(self.chance) for _ in range(self.chance.randint(1, 4))]
        everybody = range(len(self.processes))
        self.survivors = set(everybody) if seed % 2 else {self.chance.choice(everybody)}
        self.router = Router(len(self.processes), HEDGE_S, 0.0)
        self.calls: list[tuple[Exchange, float]] = []  # out, and when they come back
        self.questions: dict[int, int] = {}
        self.limited: set[int] = set()
        self.ended: dict[int, str] = {}

    def end(self, ask: int, how: str) -> None:
        assert ask not in self.ended, f"{ask} ended twice"
        self.ended[ask] = how

    def step(self, mischief: bool) -> None:
        chance = self.chance
        self.now_s += chance.choice([0.01, 0.1, 0.3])
        if mischief and chance.random() < 0.5:
            self._ask()
        open_asks = [ask for ask in self.questions if ask not in self.ended]
        if mischief and open_asks and chance.random() < 0.05:
            ask = chance.choice(open_asks)
            self.router.give_up(ask)
            self.end(ask, "given up")
        for worker, process in enumerate(self.processes):
            self._change(worker, process, mischief)
            process.work(sound=not mischief)
        self._reply(mischief)
        decisions = self.router.decide(self.now_s)
        for ask in decisions.expired:
            assert ask in self.limited
            self.end(ask, "expired")
        for ask in decisions.condemned:
            if ask not in self.ended:  # given up since
                self.end(ask, "condemned")
        for call in decisions.exchanges:
            self._send(call)
        self._check_books()

    def _ask(self) -> None:
        ask = len(self.questions)
        self.questions[ask] = self.chance.randint(1, 5)
        limits = {}
        if self.chance.random() < 0.3:
            self.limited.add(ask)
            limits = {self.chance.choice(["limit_s", "absent_s"]): self.chance.uniform(1.0, 30.0)}
        self.router.add(ask, self.questions[ask], self.now_s, **limits)

    def _change(self, worker: int, process: Process, mischief: bool) -> None:
        if not mischief:
            wanted = "ready" if worker in self.survivors else "dead"
            if process.state != wanted:
                self._fail_calls(worker)
                process.restart(wanted)
        elif process.state == "ready" and self.chance.random() < 0.02:
            process.state = self.chance.choice(["hung", "dead", "starting"])
            if process.state != "hung":
                process.restart(process.state)
            if process.state == "dead":
                self._fail_calls(worker)
        elif process.state == "hung" and self.chance.random() < 0.03:
            if self.chance.random() < 0.5:
                process.state = "ready"  # it goes on
            else:
                self._fail_calls(worker)
                process.restart("dead")
        elif process.state in ("dead", "starting") and self.chance.random() < 0.05:
            process.restart("starting" if process.state == "dead" else "ready")

    def _fail_calls(self, worker: int) -> None:
        for entry in [entry for entry in self.calls if entry[0].worker == worker]:
            self.calls.remove(entry)
            self.router.note_gone(worker, entry[0].number, self.now_s)

    def _send(self, call: Exchange) -> None:
        process = self.processes[call.worker]
        assert not call.asks or process.said_ready, "asked a worker that said that it is not ready"
        assert all(ask not in self.ended for ask in call.asks)
        if process.state == "dead":
            self.router.note_gone(call.worker, call.number, self.now_s)
            process.said_ready = False
            return
        if process.state == "ready":
            process.take(call, self.questions)
        self.calls.append((call, self.now_s + self.chance.uniform(0.0, call.hold_s + 0.1)))

    def _reply(self, mischief: bool) -> None:
        for entry in list(self.calls):
            call, when_s = entry
            process = self.processes[call.worker]
            if process.state == "hung" or (when_s > self.now_s and not process.answers):
                continue
            self.calls.remove(entry)
            answers, process.answers = tuple(process.answers), []
            if mischief and self.chance.random() < 0.03:  # the reply is lost on its way
                if call.number in self.router._workers[call.worker].calls:  # else it was taken for lost before
                    process.said_ready = False
                self.router.note_gone(call.worker, call.number, self.now_s)
                continue
            vitals = process.vitals()
            process.said_ready = vitals.ready
            reply = Replies(vitals, answers, (), tuple(process.running))
            for answer in self.router.note_reply(call.worker, call.number, reply, self.now_s):
                assert answer.value == answer.id
                self.end(answer.id, "answered")

    def _check_books(self) -> None:
        open_asks = self.questions.keys() - self.ended.keys() - set(self.router._condemned)
        assert self.router._asks.keys() == open_asks  # none is forgotten
        for ask, a in self.router._asks.items():
            assert len(a.at) <= HOLDERS
            assert a.losses < MAX_LOSSES
            assert bool(a.at) != (ask in self.router._waiting)
            assert a.begun <= a.at.keys()
            assert all(ask in self.router._workers[worker].sent for worker in a.at)
        for worker, w in enumerate(self.router._workers):
            assert w.own == sum(self.questions[ask] for ask in w.sent)
            assert all(worker in self.router._asks[ask].at for ask in w.sent)


@pytest.mark.parametrize("seed", range(150))
def test_every_ask_ends_once_whatever_the_workers_do(seed: int) -> None:
    world = World(seed)
    for _ in range(600):
        world.step(mischief=True)
    for _ in range(3000):  # now they are sound, or all but one are dead for good
        world.step(mischief=False)
        if len(world.ended) == len(world.questions):
            break
    assert world.ended.keys() == world.questions.keys()
    assert all(world.ended[ask] != "expired" for ask in world.questions.keys() - world.limited)
    for _ in range(300):  # and what nobody waits for is given up
        world.step(mischief=False)
    assert world.router.idle
