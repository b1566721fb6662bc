"""For each alert: a moment in which it fires, one in which it must not, and one after which it is over. Data only."""

from protocol import metrics as m
from tests.unit.cluster.observe.alert_rules import NODE, UP, Situation, of

PLAYER = {"player": "defender"}
LIVES = {  # a driver that plays, looks once a second, and whose node is scraped
    of(m.PHASE, phase="playing"): "1x400",
    of(m.PHASE, phase="ending"): "0x400",
    of(m.HEARTBEATS): "0+30x400",
    of(m.PROCESS_START): "100x400",
    UP: "1x400",
}
AT_NODE = {"instance": NODE}


def lives(**changes: str) -> dict[str, str]:
    """`LIVES`, with other values of some: `playing`, `ending`, `beats`, `start`, `up`."""
    names = dict(zip(("playing", "ending", "beats", "start", "up"), LIVES, strict=True))
    return LIVES | {names[name]: values for name, values in changes.items()}


def steps(step: str, slow: bool = False, target: str = "1000x200") -> dict[str, str]:
    """A learner: its steps took 2.5 to 5 s (`slow`: 60 to 120 s), its waits up to 1 s."""
    buckets = {"5.0": "0x200", "60.0": "0x200", "120.0": "0+1x200"} if slow else {"5.0": "0+1x200"}
    return {
        of(m.STEP, **PLAYER): step,
        of(m.TARGET_STEPS): target,
        **{
            of(m.STEP_SECONDS, "bucket", **PLAYER, le=le): values for le, values in (buckets | {"2.5": "0x200"}).items()
        },
        of(m.STEP_SECONDS, "bucket", **PLAYER, le="+Inf"): "0+1x200",
        of(m.LEASE_SECONDS, "bucket", **PLAYER, le="0.5"): "0x200",
        of(m.LEASE_SECONDS, "bucket", **PLAYER, le="1.0"): "0+1x200",
        of(m.LEASE_SECONDS, "bucket", **PLAYER, le="+Inf"): "0+1x200",
    }


def staleness(at_3: str, at_4: str, bound: int = 4) -> dict[str, str]:
    """Games learned 3 versions after they were asked for, or earlier; and all of them, 4 versions at most."""
    return {
        of(m.STALENESS, "bucket", **PLAYER, le="0.5"): "0x400" if bound else at_4,
        of(m.STALENESS, "bucket", **PLAYER, le="3.5"): at_3,
        of(m.STALENESS, "bucket", **PLAYER, le="4.5"): at_4,
        of(m.STALENESS, "bucket", **PLAYER, le="+Inf"): at_4,
        of(m.STALENESS_BOUND): f"{bound}x400",
    }


def length(tokens: str) -> dict[str, str]:
    """Ten completions a minute of so many tokens."""
    return {of(m.COMPLETION_TOKENS, "sum", **PLAYER): tokens, of(m.COMPLETION_TOKENS, "count", **PLAYER): "0+10x600"}


def rewards(ties: str, reward: str) -> dict[str, str]:
    """A hundred rows a minute."""
    return {
        of(m.ROWS, **PLAYER, outcome="tie"): ties,
        of(m.ROWS, **PLAYER, outcome="appended"): "0+100x200",
        of(m.REWARD, **PLAYER, category="harmful"): reward,
        of(m.REWARD, **PLAYER, category="benign"): "2x200",
    }


def flips(flipped: str, agreed: str) -> dict[str, str]:
    """Compared pairs."""
    return {of(m.COMPARISONS, outcome="flipped"): flipped, of(m.COMPARISONS, outcome="agreed"): agreed}


SITUATIONS: dict[str, list[Situation]] = {
    "AdvgameHeartbeatMissing": [
        # It hangs: there, in the phase `playing`, and does not look.
        Situation("fires", lives(beats="0+30x20 600x40"), {"20m": {**AT_NODE, "shown": "1"}}),
        # It was killed: its gauges are gone, the last value of its counter stays at the node's agent.
        Situation(
            "fires",
            lives(playing="1x20 stale", ending="0x20 stale", beats="0+30x20 600x40", start="100x20 stale"),
            {"20m": {**AT_NODE, "shown": "0"}},
        ),
        Situation("quiet", LIVES, {"10m": None, "1h": None}),
        # It ended in order.
        Situation(
            "quiet",
            lives(playing="1x20 0x2 stale", ending="0x20 1x2 stale", beats="0+30x20 600x200", start="100x22 stale"),
            {"12m": None, "20m": None, "39m": None, "42m": None, "90m": None},
        ),
        # A measurement, in which it looks at nothing.
        Situation("quiet", lives(playing="1x20 0x100", beats="0+30x20 600x100"), {"20m": None, "40m": None}),
        Situation("resolves", lives(beats="0+30x20 600x20 600+30x60"), {"20m": {**AT_NODE, "shown": "1"}, "25m": None}),
        # Nobody resumes it: it is told of for half an hour.
        Situation(
            "resolves",
            lives(playing="1x20 stale", ending="0x20 stale", beats="0+30x20 600x200", start="100x20 stale"),
            {"30m": {**AT_NODE, "shown": "0"}, "45m": None},
        ),
        # It is resumed, and ends in order.
        Situation(
            "resolves",
            lives(playing="1x20 stale", ending="0x20 stale", start="100x20 stale", beats="0+30x20 stale")
            | {
                of(m.PHASE, phase="playing", role="driver-0").replace("{", '{WorkerId="b",'): "_x40 1x20 0x5 stale",
                of(m.PHASE, phase="ending", role="driver-0").replace("{", '{WorkerId="b",'): "_x40 0x20 1x5 stale",
                of(m.HEARTBEATS).replace("{", '{WorkerId="b",'): "_x40 0+30x200",
            },
            {"19m": {**AT_NODE, "shown": "0"}, "25m": None, "35m": None, "50m": None},
        ),
    ],
    "AdvgameTargetMissing": [
        Situation(
            "fires",
            lives(
                up="1x20 0x40", playing="1x20 stale", ending="0x20 stale", beats="0+30x20 stale", start="100x20 stale"
            )
            | {of(m.PROCESS_START, role="replay-0"): "100x20 stale"},
            {"20m": {**AT_NODE, "shown": "2"}},
        ),
        # It is no target any more: nothing of it is scraped, and no `up` says so.
        Situation(
            "fires",
            lives(
                up="1x20 stale", playing="1x20 stale", ending="0x20 stale", beats="0+30x20 stale", start="100x20 stale"
            ),
            {"20m": {**AT_NODE, "shown": "1"}},
        ),
        Situation("quiet", LIVES, {"20m": None}),
        # The run ended in order, and then the node went.
        Situation(
            "quiet",
            lives(
                playing="1x20 0x2 stale",
                ending="0x20 1x2 stale",
                beats="0+30x22 stale",
                start="100x22 stale",
                up="1x24 0x99",
            ),
            {"20m": None, "30m": None, "1h": None},
        ),
        Situation(
            "resolves",
            lives(
                up="1x20 0x20 1x40",
                playing="1x20 stale _x19 1x40",
                ending="0x20 stale _x19 0x40",
                beats="0+30x20 stale _x19 1200+30x40",
                start="100x20 stale _x19 100x40",
            ),
            {"18m": {**AT_NODE, "shown": "1"}, "25m": None},
        ),
    ],
    "AdvgameWorkerRestarts": [
        Situation(
            "fires",
            {of(m.RESTARTS, role="judge-0", cause="stuck"): "_x10 1x3 2x3 3x40"},
            {"10m": {"role": "judge-0", "cause": "stuck", "shown": "3"}},
        ),
        Situation(
            "quiet",
            {
                of(m.RESTARTS, role="judge-0", cause="stuck"): "_x10 1x3 2x40",
                of(m.RESTARTS, role="judge-1", cause="stuck"): "_x10 1x3 2x40",
            },
            {"6m": None, "20m": None},
        ),
        Situation(
            "resolves",
            {of(m.RESTARTS, role="judge-0", cause="stuck"): "_x10 1x3 2x3 3x200"},
            {"10m": {"role": "judge-0", "cause": "stuck", "shown": "3"}, "45m": None},
        ),
    ],
    "AdvgameReplayDiskLow": [
        Situation("fires", {of(m.DISK_FREE): "4000000000x40"}, {"15m": {"shown": "3.725Gi"}}),
        Situation(  # 10 GB a minute
            "fires",
            {of(m.DISK_FREE): "1000000000000-10000000000x60"},
            {"20m": None, "45m": {"shown": "512.2Gi"}},
            every="1m",
        ),
        # A run begins: 30 GB are written in its first minutes, and no more.
        Situation(
            "quiet",
            {of(m.DISK_FREE): "100000000000-10000000000x3 70000000000x60"},
            {"5m": None, "15m": None, "25m": None, "45m": None},
            every="1m",
        ),
        # A part of it that ended filled the disk; the one that goes on writes little, and has a series of its own.
        Situation(
            "quiet",
            {
                of(m.DISK_FREE, instance="node-1:1"): "1000000000000-10000000000x25",
                of(m.DISK_FREE, instance="node-1:2"): "_x26 750000000000-1000000x80",
            },
            {"20m": None, "45m": None, "65m": None},
            every="1m",
        ),
        Situation("quiet", {of(m.DISK_FREE): "1000000000000-100000000x60"}, {"5m": None, "45m": None}, every="1m"),
        Situation("quiet", {of(m.DISK_FREE): "10000000000x60"}, {"45m": None}, every="1m"),
        Situation(
            "resolves",
            {of(m.DISK_FREE): "4000000000x20 1000000000000x100"},
            {"15m": {"shown": "3.725Gi"}, "30m": None},
            every="1m",
        ),
    ],
    "AdvgamePushFailing": [
        Situation(
            "fires",
            {of(m.PUSHES, **PLAYER, outcome="loaded"): "0+3x120", of(m.PUSHES, **PLAYER, outcome="late"): "0+1x120"},
            {"30m": {**PLAYER, "shown": "25%"}},
        ),
        Situation(
            "quiet",
            {
                of(m.PUSHES, **PLAYER, outcome="loaded"): "0+1x120",
                of(m.PUSHES, **PLAYER, outcome="late"): "_x40 1x9 2x9 3x80",
            },
            {"26m": None, "40m": None},
        ),
        # Pushes are rare, and one of two failed.
        Situation(
            "quiet",
            {of(m.PUSHES, **PLAYER, outcome="loaded"): "1x120", of(m.PUSHES, **PLAYER, outcome="late"): "_x10 1x100"},
            {"10m": None, "15m": None},
        ),
        Situation(
            "resolves",
            {
                of(m.PUSHES, **PLAYER, outcome="loaded"): "0+3x300",
                of(m.PUSHES, **PLAYER, outcome="late"): "0+1x60 60x240",
            },
            {"30m": {**PLAYER, "shown": "25%"}, "1h": None},
        ),
    ],
    "AdvgameWorkerBehind": [
        Situation(
            "fires",
            {
                of(m.VERSION, **PLAYER): "0+1x120",
                of(m.WORKER_VERSION, **PLAYER, worker="generation-defender-0"): "0+1x120",
                of(m.WORKER_VERSION, **PLAYER, worker="generation-defender-1"): "0+1x10 10x120",
                of(m.STALENESS_BOUND): "4x120",
            },
            {"20m": {**PLAYER, "worker": "generation-defender-1", "shown": "30"}},
        ),
        # Replicas that are to be behind, and one that starts.
        Situation(
            "quiet",
            {
                of(m.VERSION, **PLAYER): "4+1x120",
                of(m.WORKER_VERSION, **PLAYER, worker="generation-defender-0"): "0+1x120",
                of(m.WORKER_VERSION, **PLAYER, worker="generation-defender-1"): "-1x120",
                of(m.STALENESS_BOUND): "4x120",
            },
            {"20m": None, "50m": None},
        ),
        # A synchronous run: one behind, for as long as a push takes.
        Situation(
            "quiet",
            {
                of(m.VERSION, **PLAYER): "1+1x120",
                of(m.WORKER_VERSION, **PLAYER, worker="generation-defender-0"): "0+1x120",
                of(m.STALENESS_BOUND): "0x120",
            },
            {"20m": None},
        ),
        Situation(
            "resolves",
            {
                of(m.VERSION, **PLAYER): "0+1x120",
                of(m.WORKER_VERSION, **PLAYER, worker="generation-defender-0"): "0+1x10 10x29 40+1x80",
                of(m.STALENESS_BOUND): "4x120",
            },
            {"15m": {**PLAYER, "worker": "generation-defender-0", "shown": "20"}, "25m": None},
        ),
    ],
    "AdvgameDigestMismatch": [
        Situation("fires", {of(m.DIGEST_MISMATCHES, **PLAYER): "_x10 1x60"}, {"6m": {**PLAYER, "shown": "1"}}),
        Situation("quiet", {of(m.PUSHES, **PLAYER, outcome="loaded"): "0+1x60"}, {"20m": None}),
        Situation(
            "resolves",
            {of(m.DIGEST_MISMATCHES, **PLAYER): "_x10 1x300"},
            {"30m": {**PLAYER, "shown": "1"}, "2h": None},
        ),
    ],
    "AdvgameJudgeFailing": [
        Situation("fires", {of(m.JUDGE_FAILURE): "0.2x60", of(m.JUDGE_ALARM): "0x60"}, {"10m": {"shown": "20%"}}),
        # The alarm is up, and of the latest verdicts few failed yet.
        Situation("fires", {of(m.JUDGE_FAILURE): "0.05x60", of(m.JUDGE_ALARM): "1x60"}, {"10m": {"shown": "5%"}}),
        Situation("quiet", {of(m.JUDGE_FAILURE): "0.05x60", of(m.JUDGE_ALARM): "0x60"}, {"10m": None}),
        Situation(
            "resolves",
            {of(m.JUDGE_FAILURE): "0.2x20 0x60", of(m.JUDGE_ALARM): "0x80"},
            {"10m": {"shown": "20%"}, "15m": None},
        ),
    ],
    "AdvgamePositionFlips": [
        Situation("fires", flips("0+4x120", "0+6x120"), {"1h": {"shown": "40%"}}, every="1m"),
        # One in ten for five hours, then one in four.
        Situation("fires", flips("0+1x300 302+2.5x90", "0+9x300 2707+7.5x90"), {"6h": {"shown": "25%"}}, every="1m"),
        Situation("quiet", flips("0+2x120", "0+8x120"), {"1h": None, "2h": None}, every="1m"),
        Situation("quiet", flips("0+1x120", "0+1x120"), {"1h": None}, every="1m"),  # few pairs say little
        Situation("resolves", flips("0+4x60 240x120", "0+6x180"), {"1h": {"shown": "40%"}, "2h": None}, every="1m"),
    ],
    "AdvgameKvPreemptions": [
        Situation(
            "fires",
            {of(m.PREEMPTIONS, **PLAYER): "0+2x120", of(m.REQUESTS, **PLAYER, outcome="answered"): "0+10x120"},
            {"30m": {**PLAYER, "shown": "0.20"}},
        ),
        Situation(
            "quiet",
            {
                of(m.PREEMPTIONS, **PLAYER): "0+2x120",
                of(m.REQUESTS, **PLAYER, outcome="answered"): "0+100x120",
                of(m.REQUESTS, **PLAYER, outcome="late"): "0+1x120",
            },
            {"30m": None},
        ),
        Situation(
            "resolves",
            {of(m.PREEMPTIONS, **PLAYER): "0+2x60 120x120", of(m.REQUESTS, **PLAYER, outcome="answered"): "0+10x180"},
            {"30m": {**PLAYER, "shown": "0.20"}, "1h": None},
        ),
    ],
    "AdvgameNoLearnerStep": [
        Situation("fires", LIVES | steps("1+1x40 41x60"), {"30m": {**PLAYER, "shown": "9m 0s"}}),
        # Its process is gone, and with it its gauges; it has steps left.
        Situation("fires", LIVES | steps("1+1x40 stale"), {"30m": {**PLAYER, "shown": "9m 0s"}}),
        Situation("quiet", LIVES | steps("1+1x200"), {"30m": None}),
        Situation(
            "quiet", LIVES | steps("1+1x40 41x60", slow=True), {"30m": None}
        ),  # nine minutes are six of its steps
        Situation(
            "quiet", LIVES | steps("1+1x40 41x60", target="41x200"), {"30m": None}
        ),  # it is done, the other one is not
        Situation("quiet", lives(playing="1x40 0x200") | steps("1+1x40 41x60"), {"30m": None}),  # a measurement
        Situation(  # the other player's turn
            "quiet",
            LIVES | steps("1+1x40 41x60") | {of(m.WAITING, side="defender", cause="turn"): "0x40 0+30x60"},
            {"30m": None},
        ),
        Situation(
            "resolves", LIVES | steps("1+1x40 41x20 42+1x100"), {"30m": {**PLAYER, "shown": "9m 0s"}, "35m": None}
        ),
    ],
    "AdvgameStalenessAtBound": [
        Situation("fires", staleness("0+1x120", "0+10x120"), {"30m": {**PLAYER, "shown": "3.94"}}),
        Situation("quiet", staleness("0+6x120", "0+10x120"), {"30m": None}),
        Situation("quiet", staleness("0+10x120", "0+10x120", bound=0), {"30m": None}),  # synchronous
        Situation(
            "resolves", staleness("0+1x60 70+10x200", "0+10x260"), {"30m": {**PLAYER, "shown": "3.94"}, "1h": None}
        ),
    ],
    "AdvgameOverRefusalUp": [
        Situation("fires", {of(m.HELDOUT, score="over_refusal"): "0.1x20 0.3x40"}, {"25m": {"shown": "20%"}}),
        Situation(
            "quiet",
            {
                of(m.HELDOUT, score="over_refusal"): "0.1x20 0.2x40",
                of(m.HELDOUT, score="attack_success"): "0.1x20 0.6x40",
            },
            {"30m": None},
        ),
        Situation("quiet", {of(m.HELDOUT, score="over_refusal"): "0.4x20 0.1x40"}, {"30m": None}),
        Situation(
            "resolves",
            {of(m.HELDOUT, score="over_refusal"): "0.1x20 0.3x30 0.12x60"},
            {"23m": {"shown": "20%"}, "30m": None},
        ),
    ],
    "AdvgameEntropyCollapse": [
        Situation(
            "fires",
            {of(m.SURPRISAL, **PLAYER): "0+20x60 1202+2x60", of(m.GENERATED_TOKENS, **PLAYER): "0+10x120"},
            {"2h": {**PLAYER, "shown": "0.20"}},
            every="1m",
        ),
        Situation(
            "quiet",
            {of(m.SURPRISAL, **PLAYER): "0+20x60 1208+8x60", of(m.GENERATED_TOKENS, **PLAYER): "0+10x120"},
            {"30m": None, "2h": None},
            every="1m",
        ),
        Situation(
            "resolves",
            {of(m.SURPRISAL, **PLAYER): "0+20x60 1202+2x59 1340+20x60", of(m.GENERATED_TOKENS, **PLAYER): "0+10x180"},
            {"2h": {**PLAYER, "shown": "0.20"}, "3h": None},
            every="1m",
        ),
    ],
    "AdvgameLengthShift": [
        Situation("fires", length("0+400x60 24100+100x60"), {"90m": {**PLAYER, "shown": "10"}}, every="1m"),
        Situation("fires", length("0+400x60 25000+1000x60"), {"90m": {**PLAYER, "shown": "100"}}, every="1m"),
        Situation("quiet", length("0+400x60 24300+300x60"), {"10m": None, "90m": None}, every="1m"),
        # It collapses for a quarter of an hour.
        Situation(
            "resolves",
            length("0+400x60 24100+100x29 27400+400x90"),
            {"85m": {**PLAYER, "shown": "10"}, "2h": None},
            every="1m",
        ),
    ],
    "AdvgameRewardsFlat": [
        Situation("fires", rewards("0+95x200", "3x200"), {"1h": {**PLAYER, "shown": "95%"}}, every="1m"),
        Situation("quiet", rewards("0+95x200", "3+0.1x200"), {"1h": None}, every="1m"),  # it still gets better
        Situation("quiet", rewards("0+50x200", "3x200"), {"1h": None}, every="1m"),  # rows are left to learn from
        Situation(
            "resolves",
            rewards("0+95x60 5700+10x140", "3x200"),
            {"1h": {**PLAYER, "shown": "95%"}, "2h": None},
            every="1m",
        ),
    ],
}
