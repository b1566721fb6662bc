"""The RolloutWorker: plays many games at once, without a barrier; as one ends, another is asked for.

Invariants:
- Every game that was dealt to this worker is finished, abandoned with a reason, or (if the worker dies) dealt again by the
  source under the same id. Nothing is dropped uncounted.
- At most `in_flight` games are being played.
- No text of a game is ever logged: of an unexpected error, its type and the lines it passed.

Knows neither vLLM, nor who judges, nor why a game was dealt. An error of the source ends `run`, and
with it the cluster's run; if the process dies, Ray restarts it and its games are dealt again.
"""

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from structlog.contextvars import bind_contextvars

from actors.errors import GenerationDeadline, PromptTooLong
from protocol import metrics as m
from protocol.errors import trail
from protocol.exchange import WorkersLost
from protocol.game import play_game
from protocol.interfaces import GameSource, Generator, Judge
from protocol.meter import meter
from protocol.pace import Pace
from protocol.rules import GameRules
from protocol.types import Deal, GameRecord

_log = structlog.get_logger(__name__)

DEAL_WAIT_S = 1.0  # how long the source may hold a request for games; also how soon `stop` is noticed
STOP_S = 120.0  # for the last games to be brought back
# Games that end so close together are brought back in one call, and others asked for in one: a share of the time that a game takes.
GATHER_S, GATHER_MAX_S, GATHER_SHARE = 0.05, 0.5, 0.01
# Python looks for cycles after every 700 new objects, and games make objects all the time: with a thousand in flight that was a
# seventh of a worker's CPU (7.7 ms a game against 6.6, benchmark `scale`).
COLLECT = (50_000, 20, 20)
STOPPED = "stopped"


def reason_of(error: BaseException) -> str:
    """Why a game is given up, in one word. Of a group of errors, an unexpected one counts first."""
    if isinstance(error, BaseExceptionGroup):
        reasons = [reason_of(part) for part in error.exceptions]
        return "unexpected" if "unexpected" in reasons else reasons[0]
    if isinstance(error, PromptTooLong):
        return "prompt_too_long"
    if isinstance(error, WorkersLost):
        return "workers_lost"
    if isinstance(error, GenerationDeadline | TimeoutError):
        return "generation_deadline"
    return STOPPED if isinstance(error, asyncio.CancelledError) else "unexpected"


async def _wait_for(event: asyncio.Event) -> None:
    """Returns when the event is set, and after `DEAL_WAIT_S` at the latest."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEAL_WAIT_S):
            await event.wait()


@dataclass(frozen=True, slots=True)
class RolloutStats:
    """A worker since its process started.

    Attributes:
        playing: games being played.
        finished: games brought back.
        abandoned: games given up, by reason.
    """

    playing: int = 0
    finished: int = 0
    abandoned: Mapping[str, int] = field(default_factory=dict)


class RolloutWorker:
    """Plays games of `source` until `stop`.

    Args:
        name: under which the source knows whom it dealt a game to.
        rules: of the games.
        in_flight: games played at once: this worker's share of `game.in_flight`.
        source: deals games and takes them back.
        attacker, defender, judge: whom the games ask.
        source_s: for any call to the source; covers an outage of the replay actor. The games that are played go on meanwhile.
    """

    def __init__(
        self,
        name: str,
        rules: GameRules,
        in_flight: int,
        source: GameSource,
        attacker: Generator,
        defender: Generator,
        judge: Judge,
        source_s: float = 120.0,
    ) -> None:
        self._name = name
        self._rules, self._in_flight = rules, in_flight
        self._source, self._source_s = source, source_s
        self._attacker, self._defender, self._judge = attacker, defender, judge
        self._playing: dict[int, asyncio.Task[None]] = {}
        self._records: list[GameRecord] = []
        self._given_up: list[tuple[int, str]] = []
        self._ended = asyncio.Event()  # a game ended, or we are to stop: for `_return_games`, which clears it
        self._room = asyncio.Event()  # the same, for `_fetch_games`
        self._stop = asyncio.Event()
        self._stopped = asyncio.Event()
        self._pace = Pace(GATHER_S, GATHER_MAX_S, GATHER_SHARE)
        self._finished = 0
        self._abandoned: Counter[str] = Counter()

    async def run(self) -> RolloutStats:
        """Plays until `stop`; gives `stats()`. Raises what the source raises."""
        gc.set_threshold(*COLLECT)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._return_games())
                group.create_task(self._fetch_games())
        except BaseExceptionGroup as errors:
            _log.error("rollout ends", worker=self._name, trail=trail(errors))
            raise errors.exceptions[0] from None
        finally:
            games = list(self._playing.values())
            for game in games:
                game.cancel()
            await asyncio.gather(*games, return_exceptions=True)
            self._stopped.set()
        return await self.stats()

    async def stop(self) -> None:
        """Gives up the games being played (`stopped`), brings back the finished ones and ends `run`."""
        self._stop.set()
        self._wake()
        async with asyncio.timeout(STOP_S):
            await self._stopped.wait()

    async def stats(self) -> RolloutStats:
        """The games of this process. Each call sets the metric of those being played, too."""
        meter().set(m.GAMES_PLAYING, len(self._playing))
        return RolloutStats(len(self._playing), self._finished, dict(self._abandoned))

    async def _fetch_games(self) -> None:
        """Asks for games whenever there is room; on `stop`, ends the games."""
        while not self._stop.is_set():
            room = self._in_flight - len(self._playing)
            if room <= 0:
                self._room.clear()
                await _wait_for(self._room)
                continue
            async with asyncio.timeout(self._source_s):
                deals = await self._source.deal(self._name, room, DEAL_WAIT_S)
            if self._stop.is_set():  # a task cancelled before its first step would not even note that it was
                self._given_up.extend((deal.game_id, STOPPED) for deal in deals)
                break
            for deal in deals:
                if deal.game_id not in self._playing:
                    self._playing[deal.game_id] = asyncio.create_task(self._play(deal))
            await asyncio.sleep(self._pace.wait_s())  # also where a source without games answers at once
        for game in self._playing.values():
            game.cancel()
        self._wake()

    def _wake(self) -> None:
        self._ended.set()
        self._room.set()

    async def _play(self, deal: Deal) -> None:
        """One game. It is a task of its own, so that what is bound here is in the lines of this game and of no other."""
        bind_contextvars(game=str(deal.game_id))
        began = time.monotonic()
        try:
            record = await play_game(deal, self._rules, self._attacker, self._defender, self._judge)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever ended it, a game is given up with a reason
            reason = reason_of(error)
            if reason == "unexpected":
                _log.error("game given up", worker=self._name, trail=trail(error))
            self._given_up.append((deal.game_id, reason))
        else:
            self._records.append(record)
            took_s = time.monotonic() - began
            self._pace.note(took_s)
            meter().observe(m.GAME_SECONDS, took_s)
        finally:
            del self._playing[deal.game_id]
            self._wake()

    async def _return_games(self) -> None:
        """Gives games that ended back to the source, several in one call; returns after `stop`, when none is left."""
        while True:
            await _wait_for(self._ended)
            self._ended.clear()
            if not self._stop.is_set():
                await asyncio.sleep(self._pace.wait_s())
            records, self._records = self._records, []
            given_up, self._given_up = self._given_up, []
            async with asyncio.timeout(self._source_s):
                if records:
                    await self._source.finish(self._name, records)
                # Together: each of them returns with the next group commit, and a stop gives up every game in flight.
                await asyncio.gather(*(self._source.abandon(self._name, *one) for one in given_up))
            self._finished += len(records)
            self._abandoned.update(reason for _, reason in given_up)
            if self._stop.is_set() and not self._playing and not self._records and not self._given_up:
                return
