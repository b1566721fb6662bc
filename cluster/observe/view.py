"""One moment of a run, from the statistics of its parts: the shape that progress, metrics and the watchdog read.

Pure. Where a part has not answered, its last answer stands; before the first, what an idle part would say.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cluster.measure.points import HeldoutPoint
from cluster.measure.probe import ProbeResult
from cluster.plan.plan import Plan
from cluster.publish.stats import PublisherStats, WarmStart
from cluster.replay.rules.tally import StateCounts
from cluster.replay.stats import ReplayStats, RowCounts
from cluster.supervise.watchdog import Snapshot
from judge.stats import JudgeStats, PoolStats
from protocol.roles import PLAYERS, Player
from protocol.router_state import RouterStats
from protocol.states import AttackState

INVALID: frozenset[AttackState] = frozenset(
    {"malformed", "too_long", "no_room"}
)  # states of attacks that no judge is asked about


@dataclass(frozen=True, slots=True)
class BusySeconds:
    """For how long workers had something in hand.

    Attributes:
        at_s: when they were asked, monotonic seconds.
        of: seconds since each worker's process started, by role; of those that answered.
    """

    at_s: float = 0.0
    of: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunStats:
    """The last answers of a run's parts.

    Attributes:
        replay, publisher: the actors'.
        pool: the judge pools' of the rollout workers, together; None before their first answer.
        judges: the judge workers', together.
        tokens: generated so far by all engines.
        healthy_judges: (healthy, all), as supervision finds them.
        healthy_generators: the same, for each player.
        replaced: workers that supervision replaced, by reason.
        routed: what the rollout workers' routers did, together, by whom they ask: a player or "judge".
        busy: the generation and judge workers'.
    """

    replay: ReplayStats = field(default_factory=ReplayStats)
    publisher: PublisherStats = field(default_factory=PublisherStats)
    pool: PoolStats | None = None
    judges: JudgeStats = field(default_factory=JudgeStats)
    tokens: int = 0
    healthy_judges: tuple[int, int] = (0, 0)
    healthy_generators: Mapping[Player, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys(PLAYERS, (0, 0)))
    replaced: Mapping[str, int] = field(default_factory=dict)
    routed: Mapping[str, RouterStats] = field(default_factory=dict)
    busy: BusySeconds = BusySeconds()


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a moment says only together with those before it. What is None is not known.

    Attributes:
        bottleneck: who waits for what, in words; empty: not known.
        eta_s: seconds until the last learner step.
        judge_busy, engines_busy: mean share of the workers' time with something in hand; the engines' of each player.
    """

    bottleneck: str = ""
    eta_s: float | None = None
    judge_busy: float | None = None
    engines_busy: Mapping[Player, float | None] = field(default_factory=lambda: dict.fromkeys(PLAYERS))


_NO_OUTLOOK, _NO_WARM_START = Outlook(), WarmStart()


@dataclass(frozen=True, slots=True)
class PlayerView:
    """One player's share of a moment. What is None is not known.

    Attributes:
        learns: whether it is trained.
        step: optimizer steps taken.
        version: newest policy version that was published.
        loss, accuracy: of the newest step.
        reward: mean of its newest rows.
        staleness, max_staleness: mean and largest of its rows that a step got, in policy versions.
        held: finished games that wait for a step.
        rows: by what became of them.
        ties: share of them whose items were all worth the same. GRPO sorts none out: None.
        push_s: seconds of the newest push; `pause_s`: of them, those in which generation stood still.
        busy: mean share of its engines' time with something in hand.
        warm: its warm start.
    """

    learns: bool
    step: int
    version: int
    loss: float | None
    accuracy: float | None
    reward: float | None
    held: int
    rows: RowCounts
    ties: float | None
    push_s: float | None
    pause_s: float | None
    staleness: float | None = None
    max_staleness: int | None = None
    busy: float | None = None
    warm: WarmStart = _NO_WARM_START


@dataclass(frozen=True, slots=True)
class RunView:
    """A moment. What is None is not known.

    Attributes:
        run: its name; `steps`: that each player is to take.
        bound: on the staleness, in policy versions.
        paused_s: for how long the judge's alarm is up.
        why: no game, or not more of them, may start.
        turn: the player on turn; None where nobody takes turns.
        states: how attacks and responses ended; the two shares of attacks, like them and `ties`, are of all games so far.
        bottleneck: who waits for what, in words; empty: not known.
        eta_s: seconds until the last learner step.
        judge_busy: mean share of the judge workers' time with something in hand.
        heldout: measurements on held-out seeds so far, oldest first.
        probe_drift, probe_changed, probe_accuracy: of the newest judgement of the probe set (`measure.probe`).
    """

    run: str
    steps: int
    started: int
    finished: int
    abandoned: int
    in_flight: int
    limit: int | None
    verdicts: int
    failed: int
    flip_rate: float | None
    probe_drift: float | None
    probe_changed: float | None
    probe_accuracy: float | None
    paused_s: float
    staleness: int | None
    bound: int
    why: str
    turn: Player | None
    states: StateCounts
    valid_attacks: float | None
    faithful_attacks: float | None
    players: Mapping[Player, PlayerView]
    bottleneck: str = ""
    eta_s: float | None = None
    judge_busy: float | None = None
    heldout: tuple[HeldoutPoint, ...] = ()

    @property
    def paused(self) -> bool:
        """Whether the judge's alarm is up."""
        return self.paused_s > 0


def view_of(
    plan: Plan,
    stats: RunStats,
    probe: ProbeResult | None = None,
    heldout: tuple[HeldoutPoint, ...] = (),
    outlook: Outlook = _NO_OUTLOOK,
) -> RunView:
    """The moment that `stats`, the newest result of the judge's probe, the held-out scores and the moments before it describe."""
    replay, pressure, compared = stats.replay, stats.replay.backpressure, stats.replay.judge.comparisons
    return RunView(
        run=plan.name,
        steps=plan.steps,
        started=replay.games.started,
        finished=replay.games.finished,
        abandoned=replay.games.given_up,
        in_flight=replay.games.in_flight,
        limit=None if pressure is None else pressure.limit,
        verdicts=replay.judge.verdicts,
        failed=replay.judge.failed,
        # In one order nothing can flip: a rate of 0 would be a measurement that nobody took.
        flip_rate=replay.judge.disagreements / compared if compared and plan.rules.both_orders else None,
        probe_drift=None if probe is None else probe.drift,
        probe_changed=None if probe is None else probe.changed,
        probe_accuracy=None if probe is None else probe.accuracy,
        paused_s=replay.alarm.up_s,
        staleness=replay.staleness.max_learned,
        bound=plan.replay.admission.max_staleness,
        why=replay.admission.why,
        turn=replay.turn,
        states=replay.states,
        valid_attacks=share_valid(replay.states.attack),
        faithful_attacks=share_faithful(replay.states.attack) if plan.rules.game.faithfulness else None,
        players={p: _view_player(p, plan, stats, outlook) for p in PLAYERS},
        bottleneck=outlook.bottleneck,
        eta_s=outlook.eta_s,
        judge_busy=outlook.judge_busy,
        heldout=heldout,
    )


def _view_player(player: Player, plan: Plan, stats: RunStats, outlook: Outlook) -> PlayerView:
    mine, rows, stale = stats.publisher.players[player], stats.replay.rows[player], stats.replay.staleness_of[player]
    learned = rows.learned + rows.leased > 0  # before that a staleness of 0 would be a measurement that nobody took
    sorts_ties = plan.replay.losses[player] != "grpo"
    return PlayerView(
        learns=player in plan.trained,
        step=mine.step,
        version=mine.newest,
        loss=mine.metrics.get("loss"),
        accuracy=mine.metrics.get("accuracy"),
        reward=stats.replay.rewards[player],
        held=stats.replay.held_games[player],
        rows=rows,
        ties=rows.evicted.get("tie", 0) / rows.appended if rows.appended and sorts_ties else None,
        push_s=mine.pushes.total_s,
        pause_s=mine.pushes.pause_s,
        staleness=stale.mean_learned if learned else None,
        max_staleness=stale.max_learned if learned else None,
        busy=outlook.engines_busy[player],
        warm=mine.warm,
    )


def share_valid(attacks: Mapping[AttackState, int]) -> float | None:
    """The share of attacks that ended in time and in their format; None without any."""
    total = sum(attacks.values())
    return (total - _count(attacks, INVALID)) / total if total else None


def share_faithful(attacks: Mapping[AttackState, int]) -> float | None:
    """The share of valid attacks that kept their seed's meaning, those left out on which the judge failed; None without any."""
    judged = sum(attacks.values()) - _count(attacks, {*INVALID, "judge_failed"})
    return (judged - attacks.get("unfaithful", 0)) / judged if judged else None


def _count(states: Mapping[AttackState, int], some: Collection[AttackState]) -> int:
    return sum(states.get(state, 0) for state in some)


def snapshot_of(plan: Plan, view: RunView, stats: RunStats, now_s: float) -> Snapshot:
    """The watchdog's share of the moment that `view` shows."""
    return Snapshot(
        now_s=now_s,
        steps={p: view.players[p].step for p in PLAYERS},
        games_finished=view.finished,
        games_started=view.started,
        games_abandoned=view.abandoned,
        tokens=stats.tokens,
        verdicts=view.verdicts,
        held={p: view.players[p].held for p in PLAYERS if view.turn in (None, p)},
        batch=plan.replay.admission.batch_games,
        healthy_judges=stats.healthy_judges,
        healthy_generators=stats.healthy_generators,
        admission=view.why,
        paused_s=view.paused_s,
    )
