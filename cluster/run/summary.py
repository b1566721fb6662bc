"""`summary.json`: what a run came to. What a person reads of it at the end is `end_tables`'."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cluster.exits import RunEnd
from cluster.inputs.package_versions import package_versions
from cluster.measure.heldout import Measurement
from cluster.measure.points import HeldoutPoint
from cluster.measure.probe import ProbeResult
from cluster.measure.promotion import Decision
from cluster.measure.record import Reason
from cluster.observe.sinks.outlet import SinkCounts
from cluster.observe.view import RunStats
from cluster.plan.plan import Plan
from cluster.publish.stats import PushTimes
from cluster.replay.stats import ReplayStats
from cluster.rundir import RunDir
from judge.stats import JudgeStats
from protocol.roles import PLAYERS, Player
from protocol.router_state import RouterStats

_NOTHING: dict[str, Any] = {  # what a run that never began has to say
    "wall_s_total": 0.0,
    "steps": dict.fromkeys(PLAYERS, 0),
    "warm_start": {},
    "versions_pushed": dict.fromkeys(PLAYERS, 0),
    "games": {"started": 0, "finished": 0, "abandoned": 0},
    "rows": {p: {"appended": 0, "learned": 0, "held": 0, "evicted": {}} for p in PLAYERS},
    "staleness": {"max_learned": None, "mean_learned": None},
    "states": {"attack": {}, "response": {}},
    "judge": {"verdicts": 0, "failed": 0},
    "alarm": {"raised": 0, "paused_s": 0.0},
    "heldout": {},
    "sinks": {},
}


OF_REPLAY = ("games", "rows", "staleness", "states", "judge", "alarm")  # what only the replay buffer knows


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run, or the part of it that one process drove, came to.

    Attributes:
        note: why it did not finish, or what should be known if it did.
        barren: players that got no row to learn from in the whole run.
        wall_s: seconds since the process started; `first_step_s`: the same until the first learner step; None: there was none.
        stats: the last answers of its parts.
        heldout: measurements by occasion.
        points: held-out scores, those while it learned among them, of its earlier parts too; `skipped`: what gave none, by reason.
        promotion: None without a gate, or before it was asked.
        probe: the judge's newest; None without one.
        sinks: what each took and dropped.
    """

    end: RunEnd
    wall_s: float
    note: str = ""
    barren: tuple[Player, ...] = ()
    first_step_s: float | None = None
    stats: RunStats = field(default_factory=RunStats)
    heldout: Mapping[str, Measurement] = field(default_factory=dict)
    points: tuple[HeldoutPoint, ...] = ()
    skipped: Mapping[Reason, int] = field(default_factory=dict)
    promotion: Decision | None = None
    probe: ProbeResult | None = None
    sinks: Mapping[str, SinkCounts] = field(default_factory=dict)


def summarize(plan: Plan, outcome: RunOutcome, earlier: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The summary of a run, as far as it came, as `summary.json` holds it.

    Args:
        earlier: the summary of the part that a resumed run goes on from. The publisher counts anew in each part.
    """
    before = {**_NOTHING, **(earlier or {})}
    stats, players = outcome.stats, outcome.stats.publisher.players
    replay = _of_replay(stats.replay) if stats.replay.answered else {key: before[key] for key in OF_REPLAY}
    first_step_s = outcome.first_step_s
    return {
        "status": outcome.end.word,
        "note": outcome.note,
        "run": plan.name,
        "seed": plan.seed,
        "wall_s": round(outcome.wall_s, 1),
        "wall_s_total": round(outcome.wall_s + before["wall_s_total"], 1),  # of all parts of a resumed run
        "time_to_first_step_s": None if first_step_s is None else round(first_step_s, 1),
        "steps": {p: max(players[p].step, before["steps"][p]) for p in PLAYERS},
        "warm_start": before["warm_start"] | {p: asdict(players[p].warm) for p in PLAYERS if players[p].warm.done},
        "versions_pushed": {p: players[p].versions_pushed + before["versions_pushed"][p] for p in PLAYERS},
        "games": replay["games"],
        "rows": replay["rows"],
        "staleness": {"bound": plan.replay.admission.max_staleness, **replay["staleness"]},
        "states": replay["states"],
        "judge": {**replay["judge"], "pool": asdict(stats.pool) if stats.pool else {}, **_of_judges(stats.judges)},
        "alarm": replay["alarm"],
        "trained": list(plan.trained),
        "barren": list(outcome.barren),
        # null: frozen, nothing to write; or the run is not over, and what may lie there is not what it came to
        "export": {p: f"export/{p}" if p in plan.trained and outcome.end is RunEnd.FINISHED else None for p in PLAYERS},
        "adapters": {
            p: f"export/{p}-adapter"
            for p, spec in plan.learners.items()
            if spec.config.lora and outcome.end is RunEnd.FINISHED
        },
        "push": {p: _of_pushes(players[p].pushes) if stats.publisher.answered else {} for p in PLAYERS},
        "transport": {p: asdict(players[p].transport) for p in plan.trained if stats.publisher.answered},
        "workers": {p: [asdict(worker) for worker in players[p].workers] for p in PLAYERS},
        "replaced": dict(stats.replaced),  # workers, by supervision and reason
        "routed": {whom: _of_router(one) for whom, one in stats.routed.items()},
        "heldout_samples": plan.heldout.samples,
        "heldout": {**before["heldout"], **_of_heldout(outcome)},
        "sinks": _of_sinks(outcome.sinks, before["sinks"]),
        "versions": package_versions(),
        "promotion": outcome.promotion and outcome.promotion.as_dict(),
        "probe": outcome.probe and asdict(outcome.probe),
    }


def _of_replay(replay: ReplayStats) -> dict[str, Any]:
    """The replay buffer's share of a summary."""
    games, alarm = replay.games, replay.alarm
    return {
        "games": asdict(games) | {"abandoned": games.given_up, "abandoned_by": dict(games.abandoned)},
        "rows": {p: asdict(rows) for p, rows in replay.rows.items()},
        "staleness": asdict(replay.staleness) | {p: asdict(mine) for p, mine in replay.staleness_of.items()},
        "states": asdict(replay.states),
        "judge": asdict(replay.judge),
        "alarm": {"raised": alarm.raised, "paused_s": round(alarm.paused_s, 1)},
    }


def _of_heldout(outcome: RunOutcome) -> dict[str, Any]:
    """The measurements by their occasions; and where anything was measured, the scores in their order, and what gave none."""
    occasions = {name: m.as_dict() for name, m in outcome.heldout.items()}
    if not (occasions or outcome.points or outcome.skipped):
        return {}
    return {**occasions, "points": [asdict(p) for p in outcome.points], "skipped": dict(outcome.skipped)}


def _of_sinks(sinks: Mapping[str, SinkCounts], before: Mapping[str, Any]) -> dict[str, Any]:
    """Records that each took and dropped, in all parts of the run; what went wrong first in this one."""

    def add(name: str, key: str) -> int:
        return int(getattr(sinks[name], key) + before.get(name, {}).get(key, 0))

    return {
        name: {"written": add(name, "written"), "dropped": add(name, "dropped"), "failed": sinks[name].failed}
        for name in sinks
    }


def _of_router(stats: RouterStats) -> dict[str, int]:
    """Asks that the rollout workers put to one kind of worker, and what became of them."""
    return {key: value for key, value in asdict(stats).items() if key != "missed"}


def _of_judges(judges: JudgeStats) -> dict[str, Any]:
    """What the judge workers read and used; nothing for a judge that writes nothing."""
    if judges.usage is None:
        return {}
    used = {name: value for name, value in asdict(judges.usage).items() if value is not None}
    return {"unread": dict(judges.unread), "unread_rate": judges.unread_rate, **used}


def _of_pushes(pushes: PushTimes) -> dict[str, Any]:
    return asdict(pushes) if pushes.count else {"count": 0}


def list_exports(run_dir: RunDir, summary: Mapping[str, Any]) -> list[str]:
    """Where the models of a finished run lie. One that got nothing to learn from is not called trained."""
    folders = {p: str(run_dir.path / folder) for p, folder in summary["export"].items() if folder is not None}
    trained = [folder for p, folder in folders.items() if p not in summary["barren"]]
    same = [folder for p, folder in folders.items() if p in summary["barren"]]
    found = [f"trained models: {' and '.join(trained)}"] if trained else []
    found += [f"as they began: {' and '.join(same)}"] if same else []
    adapters = [str(run_dir.path / folder) for folder in summary["adapters"].values()]
    return [*found, f"their adapters, for PEFT: {' and '.join(adapters)}"] if adapters else found
