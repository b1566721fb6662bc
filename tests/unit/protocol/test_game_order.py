"""When a game asks what: each attack goes its own way, in virtual time, and a game that is given up asks nothing more."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import pytest

from protocol.game import play_game
from protocol.randomness import derive_seed
from protocol.recipe import Recipe, parse_recipe
from protocol.rules import GameRules
from protocol.types import Ask, Completion, Deal, GameRecord, JudgeRequest, Seed, Verdict
from tests.unit.fakes import FakeJudge, completion

T = TypeVar("T")
SEED = Seed("h-1", "break the lock", "harmful")
RULES = GameRules.of(Recipe())
NAMES = ("one", "two", "three")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time stands still while anything can run, and then is the next timer's."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


class Table:
    """Both players and the judge. Each takes as long as the attack that it is about says; every ask is noted with its time.

    `delays` has seconds by (who, attack), and `fails` what raises. An attack's name is the last word of its prompt, and each
    response is the name and a number.
    """

    def __init__(self, delays: Mapping[tuple[str, str], float] = {}, fails: tuple[str, str] | None = None) -> None:
        self.delays, self.fails = delays, fails
        self.asked: list[tuple[float, str, str]] = []
        self.seeds: dict[str, list[int]] = {"attacker": [], "defender": []}
        self.cancelled = 0

    async def take(self, who: str, name: str) -> None:
        self.asked.append((asyncio.get_running_loop().time(), who, name))
        try:
            await asyncio.sleep(self.delays.get((who, name), 1.0))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if (who, name) == self.fails:
            raise ValueError(name)

    def player(self, who: str) -> "_Player":
        return _Player(self, who)

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        first = requests[0]
        if first.criterion == "faithfulness":
            who, name = "faithfulness", first.responses[0]
        else:
            who = "attacker's judge" if first.query == SEED.text else "defender's judge"
            name = "all" if first.query == SEED.text else first.query
        await self.take(who, name)
        texts = {f"{name} {k}": float(k) for name, k in itertools.product(NAMES, range(2))}
        return await FakeJudge(texts).judge(requests)

    async def play(self, rules: GameRules = RULES) -> GameRecord:
        attacker, defender = self.player("attacker"), self.player("defender")
        return await play_game(Deal(7, SEED), rules, attacker, defender, self)


class _Player:
    def __init__(self, table: Table, who: str) -> None:
        self.table, self.who = table, who

    async def generate(self, ask: Ask) -> list[Completion]:
        self.table.seeds[self.who] += ask.seeds
        if self.who == "attacker":
            name = NAMES[[derive_seed(0, 7, "attacker", 0, k) for k in range(3)].index(ask.seeds[0])]
            await self.table.take(self.who, name)
            return [completion(f"<think>plan</think><prompt>{name}</prompt>")]
        name = ask.messages[-1]["content"]
        await self.table.take(self.who, name)
        return [completion(f"{name} {k}") for k in range(len(ask.seeds))]


SLOW_FIRST = {("attacker", "one"): 10.0, ("defender", "two"): 20.0, ("defender", "one"): 2.0}


def test_no_attack_waits_for_its_siblings() -> None:
    async def main() -> float:
        await Table(SLOW_FIRST).play()
        return asyncio.get_running_loop().time()

    # Attack one: 10 written, 1 faithful, 2 answered, 1 judged. Two: 1, 1, 20, 1. Then the attacks are judged. In step with each
    # other they took 10 + 1 + 20 + 1 + 1: the straggler's 9 s more.
    assert run_virtually(main()) == max(10 + 1 + 2 + 1, 1 + 1 + 20 + 1) + 1 == 24


def test_what_is_asked_follows_its_own_attack_only() -> None:
    table = Table(SLOW_FIRST)
    run_virtually(table.play())
    at = {(who, name): t for t, who, name in table.asked}
    assert at["faithfulness", "two"] == 1 and at["defender", "two"] == 2 and at["defender's judge", "two"] == 22
    assert at["faithfulness", "one"] == 10 and at["defender", "one"] == 11 and at["defender's judge", "one"] == 13
    assert at["attacker's judge", "all"] == 23


@pytest.mark.parametrize("slow", [*itertools.permutations(NAMES)])
def test_the_record_is_in_the_order_of_places_whoever_is_first(slow: tuple[str, ...]) -> None:
    rules = GameRules.of(parse_recipe({"game": {"attacks": 3}}))
    delays = {("attacker", name): 5.0 * k for k, name in enumerate(slow)}
    record = run_virtually(Table(delays).play(rules))
    assert [g.row_id for g in record.groups] == ["7/attacker/0", "7/defender/0", "7/defender/1", "7/defender/2"]
    assert [item.visible for item in record.groups[0].items] == list(NAMES)
    assert [[item.visible for item in g.items] for g in record.groups[1:]] == [[f"{n} 0", f"{n} 1"] for n in NAMES]
    assert record == run_virtually(Table().play(rules))


def test_the_sampling_seeds_are_those_of_the_places() -> None:
    table = Table()
    run_virtually(table.play())
    assert table.seeds["attacker"] == [derive_seed(0, 7, "attacker", 0, k) for k in range(2)]
    assert table.seeds["defender"] == [derive_seed(0, 7, "defender", m, k) for m in range(2) for k in range(2)]


FAILURES = [("attacker", "two"), ("faithfulness", "two"), ("defender", "two"), ("defender's judge", "two")]


async def _until_it_fails(table: Table) -> tuple[int, float]:
    """Asks made when the game ended, and the time; then a long time passes."""
    with pytest.raises(ExceptionGroup) as failed:
        await table.play()
    assert failed.group_contains(ValueError, match="two")
    made, at = len(table.asked), asyncio.get_running_loop().time()
    await asyncio.sleep(1000.0)
    return made, at


@pytest.mark.parametrize("fails", FAILURES)
def test_a_branch_that_fails_cancels_its_siblings_and_nothing_more_is_asked(fails: tuple[str, str]) -> None:
    table = Table({("attacker", "one"): 50.0}, fails)
    made, at = run_virtually(_until_it_fails(table))
    assert at == 1.0 + FAILURES.index(fails) < 50.0
    assert len(table.asked) == made and table.cancelled == 1
    assert ("attacker's judge", "all") not in {(who, name) for _, who, name in table.asked}


STAGES = [0.5, 1.5, 2.5, 3.5, 4.5]  # seconds: in the middle of each stage of a game without delays


def _give_up(table: Table) -> Callable[[float], Coroutine[Any, Any, int]]:
    async def main(at: float) -> int:
        game = asyncio.create_task(table.play())
        await asyncio.sleep(at)
        game.cancel()
        await asyncio.wait([game])
        made = len(table.asked)
        await asyncio.sleep(1000.0)
        return made

    return main


@pytest.mark.parametrize("at", STAGES)
def test_a_game_that_is_given_up_cancels_what_it_asked_and_asks_nothing_more(at: float) -> None:
    table = Table()
    made = run_virtually(_give_up(table)(at))
    assert len(table.asked) == made and table.cancelled == (1 if at == STAGES[-1] else 2)
