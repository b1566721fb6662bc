"""Alerts about pushes, engines and the judge."""

from cluster.observe.alerts.alert import Alert
from cluster.observe.alerts.promql import events, increase, select
from cluster.observe.alerts.templates import COUNT, NUMBER, PLAYER, RUN, SHARE, WORKER
from protocol import metrics as m

BY_PLAYER = "run, player"


def _flips(window: str) -> str:
    """Share of the compared pairs whose winner flipped with the order."""
    flipped = increase(select(m.COMPARISONS, outcome="flipped"), "run", window)
    return f"{flipped} / {increase(select(m.COMPARISONS), 'run', window)}"


PUSH = Alert(
    name="AdvgamePushFailing",
    severity="warning",
    expr=f"""\
{events(select(m.PUSHES, outcome="!loaded"), BY_PLAYER, "15m")}
/
{events(select(m.PUSHES), BY_PLAYER, "15m")} > 0.2
and
{events(select(m.PUSHES, outcome="!loaded"), BY_PLAYER, "15m")} > 1.5""",
    wait="2m",
    summary=f"Pushes to the {PLAYER}'s workers fail in {RUN}",
    description=f"{SHARE} of the pushes to the {PLAYER}'s generation workers in {RUN} failed in the last quarter of an hour; "
    "each worker that fails is started anew.",
)
BEHIND = Alert(
    name="AdvgameWorkerBehind",
    severity="warning",
    # More versions behind than the staleness bound allows: what it samples can never be learned. Replicas that are to be behind
    # (push.to: spread) are within the bound. A worker that starts says -1.
    expr=f"""\
max by (run, player) ({select(m.VERSION)})
- on (run, player) group_right
max by (run, player, worker) ({select(m.WORKER_VERSION)} >= 0)
> on (run) group_left
clamp_min(max by (run) ({select(m.STALENESS_BOUND)}), 1)""",
    wait="5m",
    summary=f"{WORKER} of {RUN} serves an old version",
    description=f"{WORKER} (the {PLAYER}'s, {RUN}) is {COUNT} versions behind the newest, more than replay.max_staleness: what "
    "it samples can never be learned.",
)
DIGEST = Alert(
    name="AdvgameDigestMismatch",
    severity="critical",
    expr=f"{events(select(m.DIGEST_MISMATCHES), BY_PLAYER, '1h')} > 0",
    wait="",
    summary=f"Weights of the {PLAYER} arrived damaged in {RUN}",
    description=f"{COUNT} pushes of the {PLAYER} in {RUN} brought bytes, or left parameters, that are not what the learner sent."
    " The worker is started anew; no answer came from the damaged weights.",
)
JUDGE = Alert(
    name="AdvgameJudgeFailing",
    severity="critical",
    expr=f"""\
max by (run) ({select(m.JUDGE_FAILURE)}) > 0.1
or
max by (run) ({select(m.JUDGE_FAILURE)}) and on (run) {select(m.JUDGE_ALARM)} == 1""",
    wait="2m",
    summary=f"The judge of {RUN} fails",
    description=f"{SHARE} of the latest verdicts in {RUN} could not be had, or the judge's alarm is up; above "
    "judge.alarm.failure_rate no game is dealt.",
)
FLIPS = Alert(
    name="AdvgamePositionFlips",
    severity="warning",
    expr=f"""\
(
  {_flips("30m")} > 0.35
  or
  {_flips("30m")} > 0.1 + {_flips("6h offset 30m")}
)
and
{increase(select(m.COMPARISONS), "run", "30m")} > 100""",
    wait="10m",
    summary=f"The judge of {RUN} contradicts itself",
    description=f"In {SHARE} of the pairs of {RUN} the winner changed with the order of the two answers: more than 35 %, or 10 "
    "points more than in the hours before. Those pairs count as ties.",
)
PREEMPTIONS = Alert(
    name="AdvgameKvPreemptions",
    severity="warning",
    expr=f"""\
{events(select(m.PREEMPTIONS), BY_PLAYER, "10m")}
/
{increase(select(m.REQUESTS, outcome="answered"), BY_PLAYER, "10m")} > 0.1""",
    wait="10m",
    summary=f"The {PLAYER}'s engines in {RUN} run out of KV cache",
    description=f"For every answered ask of the {PLAYER} in {RUN}, {NUMBER} requests lost their KV cache to others and were "
    "computed twice.",
)

ALERTS = (PUSH, BEHIND, DIGEST, JUDGE, FLIPS, PREEMPTIONS)
