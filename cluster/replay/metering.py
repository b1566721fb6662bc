"""Sets the replay buffer's metrics from what it tells about itself. It keeps what it set last and decides nothing."""

from collections.abc import Mapping

from cluster.replay.stats import ReplayStats, RowCounts, Wait
from protocol import metrics as m
from protocol.meter import Meter, meter
from protocol.roles import PLAYERS, Player


class ReplayMetrics:
    """The metrics of one buffer.

    Args:
        max_staleness: the bound, in versions.
        batch_games: of each player's step.
        both_orders: whether pairs are judged in both orders. In one order none can flip, and none is counted: a share of 0 flips
            would be a measurement that nobody took.
        to: None: this process's meter.
    """

    def __init__(
        self, max_staleness: int, batch_games: Mapping[Player, int], both_orders: bool, to: Meter | None = None
    ) -> None:
        self._given, self._both_orders = to, both_orders
        self._max_staleness, self._batch_games = max_staleness, batch_games
        self._waited: dict[str, float] = {}

    @property
    def _to(self) -> Meter:
        return meter() if self._given is None else self._given

    def learned(self, player: Player, staleness: list[int]) -> None:
        """A step got rows of this staleness, in versions."""
        for versions in staleness:
            self._to.observe(m.STALENESS, versions, player=player)

    def report(self, stats: ReplayStats) -> None:
        """The buffer at one moment."""
        to, games = self._to, stats.games
        to.total(m.GAMES_STARTED, games.started)
        to.total(m.GAMES, games.finished, outcome="finished")
        for reason, n in games.abandoned.items():
            to.total(m.GAMES, n, outcome=reason)
        to.total(m.GAMES_REDEALT, games.redealt)
        to.set(m.GAMES_IN_FLIGHT, games.in_flight)
        to.set(m.GAMES_LIMIT, None if stats.backpressure is None else stats.backpressure.limit)
        to.set(m.STALENESS_BOUND, self._max_staleness)
        self._count_states(stats)
        self._count_verdicts(stats)
        for player in PLAYERS:
            self._count_rows(player, stats.rows[player])
            to.set(m.ROWS_HELD, stats.rows[player].held, player=player)
            to.set(m.GAMES_HELD, stats.held_games[player], player=player)
            to.set(m.BATCH_GAMES, self._batch_games[player], player=player)
            for category, reward in stats.rewards_of[player].items():
                to.set(m.REWARD, reward, player=player, category=category)
            self._count_wait(player, stats.learner_waits[player])
        self._count_wait("rollout", stats.rollout_waits)

    def _count_states(self, stats: ReplayStats) -> None:
        for category, counts in stats.states_of.items():
            for attack, n in counts.attack.items():
                self._to.total(m.ATTACKS, n, state=attack, category=category)
            for response, n in counts.response.items():
                self._to.total(m.RESPONSES, n, state=response, category=category)

    def _count_verdicts(self, stats: ReplayStats) -> None:
        to, judge = self._to, stats.judge
        to.total(m.VERDICTS, judge.verdicts - judge.failed, outcome="given")
        to.total(m.VERDICTS, judge.failed, outcome="failed")
        if self._both_orders:
            to.total(m.COMPARISONS, judge.comparisons - judge.disagreements, outcome="agreed")
            to.total(m.COMPARISONS, judge.disagreements, outcome="flipped")
        to.set(m.JUDGE_ALARM, stats.alarm.up_s > 0)
        to.set(m.JUDGE_FAILURE, stats.alarm.failure_rate or 0.0)

    def _count_rows(self, player: Player, rows: RowCounts) -> None:
        outcomes = {"appended": rows.appended, "learned": rows.learned, "duplicate": rows.duplicates, "lost": rows.lost}
        for outcome, n in (outcomes | dict(rows.evicted)).items():
            self._to.total(m.ROWS, n, player=player, outcome=outcome)

    def _count_wait(self, side: str, wait: Wait) -> None:
        """Adds what a side has waited since the last report to what it waits for now."""
        before, self._waited[side] = self._waited.get(side, 0.0), wait.total_s
        self._to.inc(m.WAITING, wait.total_s - before, side=side, cause=wait.cause)
