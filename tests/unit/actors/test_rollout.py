"""The RolloutWorker against a fake source: every dealt game comes back finished or abandoned, and nothing waits for a batch."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import structlog

from actors import rollout
from actors.errors import GenerationDeadline, PromptTooLong
from actors.rollout import RolloutStats, RolloutWorker, reason_of
from protocol.errors import trail
from protocol.recipe import GameConfig, Recipe
from protocol.rules import GameRules
from protocol.types import Deal, GameRecord, Seed

SEED = Seed("s", "text", "benign")
Play = Callable[[Deal], Awaitable[None]]


class FakeSource:
    """Deals the games it was given, notes what comes back."""

    def __init__(self, games: int) -> None:
        self.waiting = [Deal(k, SEED) for k in range(games)]
        self.finished: list[list[int]] = []
        self.abandoned: dict[int, str] = {}
        self.limits: list[int] = []

    @property
    def back(self) -> int:
        return sum(map(len, self.finished)) + len(self.abandoned)

    async def deal(self, worker: str, limit: int, wait_s: float) -> list[Deal]:
        self.limits.append(limit)
        if not self.waiting:
            await asyncio.sleep(0.02)
        dealt, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return dealt

    async def finish(self, worker: str, records: Sequence[GameRecord]) -> None:
        self.finished.append([r.game_id for r in records])

    async def abandon(self, worker: str, game_id: int, reason: str) -> None:
        self.abandoned[game_id] = reason

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60.0):
            while not done():  # noqa: ASYNC110  # whatever the test waits for
                await asyncio.sleep(0.01)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Play], None]:
    def use(body: Play) -> None:
        async def play_game(deal: Deal, *_: Any) -> GameRecord:
            await body(deal)
            return GameRecord(deal.game_id, deal.seed, (), (), (), 0, 0)

        monkeypatch.setattr(rollout, "play_game", play_game)

    return use


def worker(source: FakeSource, in_flight: int = 4) -> RolloutWorker:
    nobody: Any = None
    rules = GameRules.of(Recipe(game=GameConfig(in_flight=64)))  # of the run; `in_flight` is this worker's share
    return RolloutWorker("rollout-0", rules, in_flight, source, nobody, nobody, nobody)


async def test_a_slow_game_holds_nobody_up(play: Callable[[Play], None]) -> None:
    async def body(deal: Deal) -> None:
        await asyncio.sleep(30 if deal.game_id == 0 else 0.01)

    play(body)
    source = FakeSource(12)
    rolling = worker(source)
    run = asyncio.create_task(rolling.run())
    await source.until(lambda: source.back == 11)
    await rolling.stop()
    stats = await run
    assert sorted(itertools.chain(*source.finished)) == list(range(1, 12))
    assert source.abandoned == {0: "stopped"}
    assert stats == RolloutStats(playing=0, finished=11, abandoned={"stopped": 1})


async def test_never_more_games_than_in_flight(play: Callable[[Play], None]) -> None:
    playing = most = 0

    async def body(deal: Deal) -> None:
        nonlocal playing, most
        playing += 1
        most = max(most, playing)
        await asyncio.sleep(0.005)
        playing -= 1

    play(body)
    source = FakeSource(30)
    rolling = worker(source, in_flight=3)
    run = asyncio.create_task(rolling.run())
    await source.until(lambda: source.back == 30)
    await rolling.stop()
    await run
    assert most == 3 and max(source.limits) == 3


async def test_games_that_end_together_come_back_together(play: Callable[[Play], None]) -> None:
    together = asyncio.Barrier(8)

    async def body(deal: Deal) -> None:
        await together.wait()

    play(body)
    source = FakeSource(8)
    rolling = worker(source, in_flight=8)
    run = asyncio.create_task(rolling.run())
    await source.until(lambda: source.back == 8)
    await rolling.stop()
    await run
    assert [sorted(batch) for batch in source.finished] == [list(range(8))]


async def test_a_game_that_cannot_be_played_is_given_up_with_a_reason(play: Callable[[Play], None]) -> None:
    errors = {0: PromptTooLong("x"), 1: GenerationDeadline("x"), 2: KeyError("secret text")}

    async def body(deal: Deal) -> None:
        if deal.game_id in errors:
            raise errors[deal.game_id]

    play(body)
    source = FakeSource(4)
    rolling = worker(source)
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        run = asyncio.create_task(rolling.run())
        await source.until(lambda: source.back == 4)
        await rolling.stop()
        stats = await run
    assert source.abandoned == {0: "prompt_too_long", 1: "generation_deadline", 2: "unexpected"}
    assert source.finished == [[3]]
    assert stats.abandoned == {"prompt_too_long": 1, "generation_deadline": 1, "unexpected": 1}
    (entry,) = logs
    assert entry["game"] == "2" and "KeyError" in entry["trail"][0] and "secret" not in str(entry)


async def test_a_source_that_fails_ends_the_run_with_its_error(play: Callable[[Play], None]) -> None:
    async def body(deal: Deal) -> None:
        await asyncio.sleep(0.01)

    play(body)

    class Failing(FakeSource):
        async def finish(self, worker: str, records: Sequence[GameRecord]) -> None:
            raise ConnectionError("replay is gone")

    with pytest.raises(ConnectionError):
        await worker(Failing(2)).run()


async def test_stop_ends_the_run_while_the_source_has_no_game(play: Callable[[Play], None]) -> None:
    source = FakeSource(0)
    rolling = worker(source)
    run = asyncio.create_task(rolling.run())
    await source.until(lambda: len(source.limits) > 1)
    await rolling.stop()
    async with asyncio.timeout(60.0):
        assert (await run).finished == 0


def test_reasons() -> None:
    assert reason_of(TimeoutError()) == "generation_deadline"
    assert reason_of(ExceptionGroup("g", [PromptTooLong("x")])) == "prompt_too_long"
    assert reason_of(ExceptionGroup("g", [PromptTooLong("x"), ValueError()])) == "unexpected"


def test_a_trail_names_lines_and_no_messages() -> None:
    try:
        raise ValueError("a prompt")
    except ValueError as error:
        lines = trail(error)
    assert lines[0] == "ValueError" and "test_rollout.py" in lines[1] and "a prompt" not in str(lines)


async def test_an_outage_of_the_source_is_waited_for_as_long_as_it_was_told(play: Callable[[Play], None]) -> None:
    class Away(FakeSource):
        async def deal(self, worker: str, limit: int, wait_s: float) -> list[Deal]:
            await asyncio.sleep(60.0)
            return []

    async def body(_: Deal) -> None: ...

    play(body)
    nobody: Any = None
    rules = GameRules.of(Recipe(game=GameConfig(in_flight=64)))
    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await RolloutWorker("rollout-0", rules, 4, Away(1), nobody, nobody, nobody, source_s=0.2).run()
    assert 0.2 <= asyncio.get_running_loop().time() - began < 30.0
