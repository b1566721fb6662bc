"""Whom the router asks, case by case in virtual time, and what holds whatever the workers do."""

import random
from collections.abc import Iterable

import pytest

from protocol.exchange import Answer, AskFault, NotReady, Replies, Vitals, WorkerFault
from protocol.router import HOME, PROBE_S, Router
from protocol.router_state import AVOID_MAX_S, AVOID_S, FRESH_S, Exchange

HEDGE_S = 4.0
READY = Vitals(ready=True)


class Bench:
    """A router, its clock, and the calls that are out."""

    def __init__(self, workers: int = 2) -> None:
        self.router = Router(workers, HEDGE_S, 0.0)
        self.now_s = 0.0
        self.out: list[Exchange] = []
        self.expired: list[int] = []

    def add(self, ask: int, questions: int = 1, **limits: float) -> list[Exchange]:
        self.router.add(ask, questions, self.now_s, **limits)
        return self.decide()

    def decide(self) -> list[Exchange]:
        decisions = self.router.decide(self.now_s)
        self.out += decisions.exchanges
        self.expired += decisions.expired
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
        self.router.note_gone(worker, call.number)


def asked(calls: Iterable[Exchange]) -> dict[int, tuple[int, ...]]:
    """By worker, the asks that go to it."""
    return {call.worker: call.asks for call in calls if call.asks}


def given_up(calls: Iterable[Exchange]) -> dict[int, tuple[int, ...]]:
    return {call.worker: call.given_up for call in calls if call.given_up}


def test_a_router_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        Router(0, HEDGE_S, 0.0)


def test_an_ask_goes_to_the_worker_with_the_fewest_questions() -> None:
    b = Bench(3)
    sizes = [4, 2, 1, 1, 1, 3]
    places = [next(iter(asked(b.add(ask, n)))) for ask, n in enumerate(sizes)]
    assert places == [0, 1, 2, 2, 1, 2]  # loads 4 | 2 | 1, then 4 | 2 | 2, then 4 | 3 | 2


def test_asks_of_one_tick_travel_together() -> None:
    b = Bench(2)
    for ask in range(6):
        b.router.add(ask, 1, 0.0)
    assert asked(b.decide()) == {0: (0, 2, 4), 1: (1, 3, 5)}


def test_idle_workers_take_turns() -> None:
    b = Bench(2)
    places = []
    for ask in range(4):
        (worker,) = asked(b.add(ask))
        places.append(worker)
        b.reply(worker, answers=[Answer(ask)])
    assert places == [0, 1, 0, 1]


def test_what_others_ask_of_a_worker_counts() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals(True, running=10), held=[0])  # nine of somebody else's
    assert [next(iter(asked(b.add(ask)))) for ask in (1, 2, 3)] == [1, 1, 1]


def test_what_a_worker_said_of_others_is_believed_for_a_while_only() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals(True, running=50), answers=[Answer(0, "a")])
    assert asked(b.add(1)) == {1: (1,)}
    b.now_s += FRESH_S
    b.reply(1, held=[1], begun=[1])  # else it would be silent, and its ask late
    assert asked(b.add(2)) == {0: (2,)}


def test_a_callers_own_share_of_the_workers_comes_first_until_it_is_fuller() -> None:
    router = Router(4, HEDGE_S, 0.0, (1, 2))  # 1 and 3
    for ask in range(24):
        router.add(ask, 1, 0.0)
        placed = {call.worker: len(call.asks) for call in router.decide(0.0).exchanges}
        assert set(placed) <= {1, 3} or ask >= 2 * HOME
    assert {k: w.own for k, w in enumerate(router._workers)} == {0: 2, 1: 10, 2: 2, 3: 10}


def test_what_is_placed_at_once_may_fill_a_worker_a_quarter_beyond_the_least() -> None:
    b = Bench(2)
    b.add(0, 20)
    b.add(1, 20)
    for ask in range(2, 8):
        b.router.add(ask, 1, 0.0)
    assert asked(b.decide()) == {0: (2, 3, 4, 5, 6, 7)}
    for ask in range(8, 12):
        b.router.add(ask, 1, 0.0)
    assert asked(b.decide()) == {1: (8, 9, 10, 11)}


def test_a_worker_that_is_not_ready_gets_nothing_until_it_is() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals(starting=True))
    assert asked(b.wait(PROBE_S)) == {1: (0,)}
    assert asked(b.add(1)) == {1: (1,)}
    b.reply(0, Vitals(starting=True))  # it was asked for a sign
    assert [call.asks for call in b.wait(PROBE_S) if call.worker == 0] == [()]
    b.reply(0, READY)
    assert asked(b.add(2)) == {0: (2,)}
    assert b.router.stats().moved == 1


def test_what_a_worker_answered_before_it_lost_its_engine_counts() -> None:
    b = Bench(1)
    b.add(0)
    b.router.add(1, 1, b.now_s)
    b.decide()
    assert b.reply(0, Vitals(), answers=[Answer(0, "text")]) == [Answer(0, "text")]
    assert b.router.stats().moved == 1  # ask 1 waits


def test_when_nobody_is_ready_asks_wait_and_everybody_is_looked_at_each_second() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals())
    b.wait(0.5)
    b.reply(1, Vitals())
    calls = []
    for _ in range(10):
        calls += b.wait(0.5)
        for call in list(b.out):
            b.reply(call.worker, Vitals())
    assert not asked(calls)
    assert 8 <= len(calls) <= 10


def test_an_ask_that_its_worker_does_not_hold_any_more_moves() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, held=[])
    assert asked(b.decide()) == {1: (0,)}  # whose turn it is


def test_an_ask_that_is_on_its_way_is_not_lost() -> None:
    b = Bench(1)
    b.add(0)
    b.add(1)  # in a second call
    b.reply(0, held=[0])  # to the first
    assert b.router.stats().moved == 0


def test_a_worker_that_is_gone_loses_its_asks_to_another() -> None:
    b = Bench(2)
    b.add(0)
    b.router.note_gone(0, 999)  # a call to an earlier process of it
    assert not asked(b.decide())
    b.router.note_gone(0, 1)
    assert asked(b.decide()) == {1: (0,)}


def test_a_worker_is_probed_though_asks_come_and_go_between_looks() -> None:
    b = Bench(2)
    b.add(0)
    b.gone(0)
    b.decide()
    for ask in range(1, 9):
        b.reply(1, answers=[Answer(ask - 1)])
        b.now_s += b.router.look_s
        b.decide()  # nothing is asked now
        if 0 in [call.worker for call in b.add(ask)]:
            return
    pytest.fail("never probed")


def test_a_call_that_never_comes_back_keeps_nobody_from_a_worker_that_answers() -> None:
    b = Bench(1)
    b.add(0)
    b.add(1)
    lost = b.out.pop(0)
    b.now_s += 2 * HEDGE_S
    b.reply(0, answers=[Answer(1)])
    assert b.router.stats().moved == 1, "the other ask was lost with its call"
    assert asked(b.decide()) == {0: (0,)}
    assert b.router.note_reply(0, lost.number, Replies(READY, (Answer(0),)), b.now_s) == [Answer(0)], (
        "late is not too late"
    )


def test_a_silent_worker_gets_nothing_and_the_first_answer_of_two_counts() -> None:
    b = Bench(2)
    b.add(0)
    assert asked(b.wait(HEDGE_S - 0.5)) == {}
    assert asked(b.wait(0.5)) == {1: (0,)}
    assert b.router.stats().hedged == 1 and b.router.stats().missed == (1, 0)
    assert b.reply(1, answers=[Answer(0, "second")]) == [Answer(0, "second")]
    assert given_up(b.decide()) == {}  # a hung process would not hear it
    assert b.reply(0, answers=[Answer(0, "first")]) == []  # it went on
    assert given_up(b.decide()) == {0: (0,)}


def test_the_other_worker_is_told_at_once_where_it_listens() -> None:
    b = Bench(2)
    b.add(0)
    for _ in range(4):  # ready, but no token
        b.wait(HEDGE_S / 4)
        b.reply(0, held=[0])
        b.decide()
    assert b.router.stats().hedged == 1
    b.reply(1, answers=[Answer(0, "x")])
    assert given_up(b.decide()) == {0: (0,)}
    assert b.router.idle


def test_never_at_a_third_worker() -> None:
    b = Bench(3)
    b.add(0)
    assert len(asked(b.wait(20 * HEDGE_S))) == 1  # both hang
    assert b.router.stats().hedged == 1


def keep_replying(b: Bench, worker: int, vitals: Iterable[Vitals], **reply: Iterable[int]) -> list[Exchange]:
    """Each second the worker answers as the next says."""
    made = []
    for each in vitals:
        made += b.wait(1.0)
        b.reply(worker, each, **reply)
        made += b.decide()
    return made


@pytest.mark.parametrize(
    ("vitals", "moves"),
    [
        ([Vitals(True, steps=7)] * 6, True),
        ([Vitals(True, steps=k) for k in range(6)], False),
        ([Vitals(True, steps=7, paused=True)] * 6, False),
        ([Vitals(True, steps=None)] * 6, False),
    ],
    ids=["stuck", "moves", "paused for new weights", "no engine that could stand still"],
)
def test_an_engine_that_stands_still_is_hedged_though_it_has_begun(vitals: list[Vitals], moves: bool) -> None:
    b = Bench(2)
    b.add(0)
    calls = keep_replying(b, 0, vitals, held=[0], begun=[0])
    assert asked(c for c in calls if c.worker == 1) == ({1: (0,)} if moves else {})


def test_an_idle_engine_is_not_stuck() -> None:
    b = Bench(2)
    b.add(0)
    b.reply(0, Vitals(True, steps=7), answers=[Answer(0)])
    b.wait(100.0)
    b.add(1)
    b.reply(1, answers=[Answer(1)])
    assert asked(b.add(2)) == {0: (2,)}


@pytest.mark.parametrize(("load", "moves"), [(2, True), (3, False)])
def test_a_late_ask_is_hedged_only_where_there_is_room(load: int, moves: bool) -> None:
    b = Bench(2)
    b.add(0, questions=4)
    b.add(1, questions=load)
    for _ in range(7):
        b.wait(1.0)
        b.reply(0, held=[0])
        b.reply(1, held=[0, 1], begun=[1])
        b.decide()
    assert b.router.stats().hedged == int(moves)


def test_an_ask_that_has_begun_is_not_late() -> None:
    b = Bench(2)
    b.add(0)
    keep_replying(b, 0, [READY] * 10, held=[0], begun=[0])
    assert b.router.stats().hedged == 0


def test_what_one_worker_fails_of_another_is_asked() -> None:
    b = Bench(3)
    b.add(0)
    assert b.reply(0, answers=[Answer(0, error=NotReady("x"))]) == []
    assert asked(b.decide()) == {1: (0,)}
    b.reply(1, answers=[Answer(0, error=WorkerFault("x"))])
    assert asked(b.decide()) == {2: (0,)}
    assert b.reply(2, answers=[Answer(0, "y")]) == [Answer(0, "y")]
    assert b.router.stats().moved == 2


def test_a_worker_that_fails_is_avoided_longer_each_time_and_forgiven_at_once() -> None:
    b = Bench(1)
    waits = []
    b.add(0)
    for _ in range(8):
        b.reply(0, answers=[Answer(0, error=WorkerFault("x"))])
        since_s = b.now_s
        while not asked(b.decide()):
            b.now_s += 0.25
        waits.append(b.now_s - since_s)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (AVOID_S, AVOID_MAX_S) == (1.0, 60.0)
    b.reply(0, answers=[Answer(0, "good")])
    b.add(1)
    b.reply(0, answers=[Answer(1, error=WorkerFault("x"))])
    assert asked(b.wait(1.0)) == {0: (1,)}


def test_failures_that_come_together_are_one() -> None:
    b = Bench(1)
    for ask in range(5):
        b.router.add(ask, 1, 0.0)
    b.decide()
    b.reply(0, answers=[Answer(ask, error=WorkerFault("x")) for ask in range(5)])
    assert asked(b.wait(1.0)) == {0: (0, 1, 2, 3, 4)}


def test_the_asks_own_fault_is_delivered_and_not_held_against_the_worker() -> None:
    b, error = Bench(1), AskFault("too long")
    b.add(0)
    assert b.reply(0, answers=[Answer(0, error=error)])[0].error is error
    assert asked(b.add(1)) == {0: (1,)}


def test_any_other_error_is_delivered_and_the_worker_avoided() -> None:
    b, error = Bench(2), KeyError("bug")
    b.add(0)
    assert b.reply(0, answers=[Answer(0, error=error)])[0].error is error
    assert [asked(b.add(ask)) for ask in (1, 2)] == [{1: (1,)}, {1: (2,)}]
    b.wait(1.0)
    assert asked(b.add(3)) == {0: (3,)}


def test_an_ask_expires_whatever_happens() -> None:
    b = Bench(1)
    b.add(0, limit_s=3.0)
    keep_replying(b, 0, [READY] * 2, held=[0], begun=[0])
    assert b.expired == []
    assert given_up(keep_replying(b, 0, [READY], held=[0])) == {0: (0,)}
    assert b.expired == [0]
    assert b.router.stats().expired == 1


def test_an_ask_expires_when_its_worker_is_not_heard_of() -> None:
    b = Bench(1)
    b.add(0, absent_s=3.0)
    keep_replying(b, 0, [READY] * 10, held=[0])
    assert b.expired == []
    b.wait(3.0)
    assert b.expired == [0]
    b = Bench(1)
    b.add(0, absent_s=3.0)
    b.gone(0)
    b.wait(3.0)
    assert b.expired == [0]  # nobody took it either


def test_a_sign_of_the_worker_comes_before_an_ask_expires_for_want_of_it() -> None:
    (call,) = Bench(1).add(0, absent_s=1.0)
    assert call.hold_s == 0.5
    (call,) = Bench(1).add(0)
    assert call.hold_s == HEDGE_S / 2


def test_what_a_worker_misses_is_counted_until_it_answers_or_is_another() -> None:
    b = Bench(1)
    for ask in range(3):
        b.add(ask, limit_s=1.0)
    b.add(9)
    b.wait(1.0)
    assert b.router.stats().missed == (3,)
    b.reply(0, held=[9])
    assert b.router.stats().missed == (3,)
    b.gone(0)
    assert b.router.stats().missed == (0,)


def test_an_answer_ends_the_row_of_misses() -> None:
    b = Bench(1)
    b.add(0, limit_s=1.0)
    b.add(1)
    b.add(2)
    b.wait(1.0)
    b.reply(0, held=[1, 2])
    b.decide()
    b.reply(0, held=[2], answers=[Answer(1)])
    assert b.router.stats().missed == (0,)


def test_who_asks_nothing_more_tells_of_no_misses() -> None:
    b = Bench(1)
    b.add(0, limit_s=1.0)
    b.wait(1.0)
    assert b.router.stats().missed == (0,)  # else a caller that is done would have a sound worker replaced for ever


def test_what_ended_while_its_worker_was_taken_for_gone_is_given_up_there() -> None:
    b = Bench(2)
    b.add(0)
    b.gone(0)  # the network only: it goes on
    assert asked(b.decide()) == {1: (0,)}
    b.reply(1, answers=[Answer(0, "x")])
    b.add(1)
    b.wait(PROBE_S)
    b.reply(0, Vitals(True, running=1), held=[0])
    assert given_up(b.decide()) == {0: (0,)}


def test_given_up_asks_are_told_once_and_never_to_who_has_them_not() -> None:
    b = Bench(2)
    b.add(0)
    b.router.add(1, 1, 0.0)
    b.router.give_up(1)  # before it went anywhere
    b.router.give_up(0)
    calls = b.decide()
    assert given_up(calls) == {0: (0,)} and asked(calls) == {}
    b.router.give_up(0)
    assert b.decide() == [] and b.router.idle


def test_a_router_is_idle_without_asks_and_says_nothing() -> None:
    b = Bench(3)
    assert b.router.idle and b.wait(10.0) == []
    b.add(0)
    assert not b.router.idle


# -- whatever the workers do


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
            self.router.note_gone(worker, entry[0].number)

    def _send(self, call: Exchange) -> None:
        process = self.processes[call.worker]
        assert not call.asks or process.said_ready, "asked a worker that said that it is not ready"
        assert all(ask not in self.ended for ask in call.asks)
        if process.state == "dead":
            self.router.note_gone(call.worker, call.number)
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
                self.router.note_gone(call.worker, call.number)
                continue
            vitals = process.vitals()
            process.said_ready = vitals.ready
            reply = Replies(vitals, answers, (), tuple(process.running))
            for answer in self.router.note_reply(call.worker, call.number, reply, self.now_s):
                assert answer.value == answer.id
                self.end(answer.id, "answered")

    def _check_books(self) -> None:
        open_asks = self.questions.keys() - self.ended.keys()
        assert self.router._asks.keys() == open_asks  # none is forgotten
        for ask, a in self.router._asks.items():
            assert len(a.at) <= 2
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
