"""A run directory as the driver leaves it, by the project's own writers, without a run."""

from pathlib import Path

from cluster.measure.points import HeldoutPoint
from cluster.observe.history import History
from cluster.observe.kept import Both, Kept
from cluster.observe.moment import Newest
from cluster.observe.run_metrics import RunMetrics
from cluster.observe.view import RunStats, view_of
from cluster.plan.plan import Plan
from cluster.publish.stats import PlayerPushes, PublisherStats, StepReport, WorkerState
from cluster.replay.rules.tally import JudgeCounts, StateCounts
from cluster.replay.stats import AlarmState, GameCounts, ReplayStats, RowCounts, Staleness, Wait
from protocol import meter
from protocol.roles import PLAYERS, Player
from tests.unit.cluster.plan.plans import parse_plan

STATES = StateCounts({"ok": 30, "malformed": 2}, {"ok": 50, "judge_failed": 1})
STATS = RunStats(
    replay=ReplayStats(
        answered=True,
        games=GameCounts(started=40, finished=32, abandoned={"late": 1}, open=7),
        rows={p: RowCounts(appended=30, learned=20, held=4, evicted={"tie": 6}) for p in PLAYERS},
        states=STATES,
        states_of={"harmful": STATES},
        judge=JudgeCounts(verdicts=80, failed=8, comparisons=20, disagreements=5),
        staleness_of={p: Staleness(2, 0.75) for p in PLAYERS},
        rewards_of={"attacker": {"harmful": 4.5, "benign": None}, "defender": {"harmful": 6.0, "benign": 7.5}},
        alarm=AlarmState(failure_rate=0.1),
        learner_waits={"attacker": Wait(total_s=3.0), "defender": Wait(total_s=5.0)},
    ),
    publisher=PublisherStats(
        True,
        {p: PlayerPushes(newest=3, step=4, workers=(WorkerState(f"{p}-0", "healthy", 2, ""),)) for p in PLAYERS},
    ),
)
POINT = HeldoutPoint("step-4", 4, {"attacker": 3, "defender": 3}, False, 0.25, 0.5, None, 64, 32, 0, 1010.0, 2.0)
TRAINED = HeldoutPoint(
    "end_trained_attacker", 4, {"attacker": 9, "defender": 9}, False, 0.9, 0.9, 0.9, 9, 9, 0, 1.0, 1.0
)


def report(player: Player, step: int, **more: float) -> StepReport:
    """A learner step that took two seconds."""
    step_s = {"items": 8.0, "skipped": 0.0, "seconds": 2.0, "lease_s": 0.3, "tokens": 100.0, "stage_s": 0.1}
    return StepReport(player, step, step - 1, 1000.0 + step, step_s | {"loss": 0.7, "kl": 0.01, "lr": 1e-4} | more)


def plan_at(path: Path) -> Plan:
    """The sandbox's defaults, its run at `path`, which is there and holds a recipe."""
    plan = parse_plan({}, path)
    path.mkdir(exist_ok=True)
    plan.run_dir.recipe.write_text(plan.recipe_yaml)
    return plan


def write_run(path: Path) -> Plan:
    """Four steps of each player and one moment. The process's meter is left as it was."""
    plan = plan_at(path)
    history = History(plan.run_dir)
    history.add([report(p, step) for step in (1, 2, 3) for p in PLAYERS])
    history.add([report("attacker", 4, loss=0.5), report("defender", 4, items=0.0)])
    history.write()
    kept, before = Kept(), meter.meter()
    meter.install(Both(before, kept.of("driver-0")))
    try:
        view = view_of(plan, STATS, heldout=(POINT, TRAINED))
        RunMetrics(path).update(view, {"judge": (1, 2)}, {"judge-0": "busy"})
    finally:
        meter.install(before)
    newest = Newest(plan, kept)
    newest.note(STATS)
    newest.write()
    return plan
