"""The board of health: whether every part lives, what was restarted, whether workers serve the newest version, what was dropped."""

from cluster.observe import promql as q
from cluster.observe.boards.panel import BYTES, COUNT, SECONDS, Board, Color, Panel, Query, Row, per
from protocol import metrics as m

PHASE_COLORS: dict[str, Color] = {
    **dict.fromkeys(("playing", "ready", "busy", "learning"), "green"),
    **dict.fromkeys(("starting", "measuring", "saving", "pushing"), "blue"),
    **dict.fromkeys(("leasing", "ending", "ended"), "gray"),
    "suspect": "orange",
    "down": "red",
}
PHASES = m.PHASE.known("phase") or ()

ALIVE = Row(
    "Is everything alive?",
    (
        Panel(
            "Heartbeats of the driver",
            "Looks of the driver at every part of the run, a second.",
            "About 1 is good. Below 0.2 the driver is overloaded or hangs; 0: it is gone, or Prometheus does not "
            "reach it.",
            per("/s"),
            (Query(q.rate(m.HEARTBEATS), "heartbeats"),),
            "stat",
            width=4,
            height=5,
            steps=((None, "red"), (0.2, "green")),
        ),
        Panel(
            "Workers that do not serve",
            "Generation and judge workers that are neither ready nor busy.",
            "0 is good after the start. Above 0 for minutes: see their phase below and logs/ROLE.log.",
            COUNT,
            (
                Query(
                    f"{q.gauge(m.WORKERS, 'max', ('pool',))} - {q.gauge(m.WORKERS_FIT, 'max', ('pool',))}", "{{pool}}"
                ),
            ),
            "stat",
            width=5,
            height=5,
            steps=((None, "green"), (1, "red")),
        ),
        Panel(
            "Judge's alarm",
            "Whether the judge's alarm is up: too many verdicts failed, and no game is dealt until it answers again.",
            "down is good. up: see failed verdicts (board Game), the endpoint, and its budget.",
            COUNT,
            (Query(q.gauge(m.JUDGE_ALARM, "max"), "alarm"),),
            "stat",
            width=3,
            height=5,
            names=(("down", "green"), ("up", "red")),
        ),
        Panel(
            "Weights that were not what was sent",
            "Pushes whose bytes, or whose loaded parameters, differ from the learner's digest.",
            "0, always. Anything else is broken memory, disk or network, or a fault of ours: the worker was replaced, "
            "tell us.",
            COUNT,
            (Query(q.count(m.DIGEST_MISMATCHES, ("player",)), "{{player}}"),),
            "stat",
            width=4,
            height=5,
            steps=((None, "green"), (1, "red")),
        ),
        Panel(
            "Disk left",
            "Bytes that the run directory's disk has left.",
            "Must hold two checkpoints of each player at least. See the hours left, below.",
            BYTES,
            (Query(q.gauge(m.DISK_FREE, "min"), "free"),),
            "stat",
            width=4,
            height=5,
            steps=((None, "red"), (10e9, "orange"), (50e9, "green")),
        ),
        Panel(
            "Disk is full in",
            "Seconds until the disk is full, at the pace of the last half hour; nothing while it does not fill.",
            "More than the time left (board Learning) is good. Less: make room now, or keep fewer checkpoints.",
            SECONDS,
            (
                Query(
                    f"{q.gauge(m.DISK_FREE, 'min')} / (max(-deriv({q.select(m.DISK_FREE)}[30m])) > 0)",
                    "full in",
                ),
            ),
            "stat",
            width=4,
            height=5,
            steps=((None, "red"), (3600, "orange"), (6 * 3600, "green")),
        ),
        Panel(
            "What every part does",
            "The phase of each part over time: the driver and the workers as the driver sees them, learners as they "
            "say.",
            "Green is work, blue a phase that passes, gray waiting or the end. Orange (suspect) turns green or is "
            "replaced; a line that ends is a part that is gone.",
            COUNT,
            (Query(q.decode(m.PHASE, "phase", PHASES, ("role",)), "{{role}}"),),
            "states",
            width=16,
            height=10,
            names=tuple((phase, PHASE_COLORS[phase]) for phase in PHASES),
        ),
        Panel(
            "Age of every part",
            "Seconds since each part's process started.",
            "Lines that rise together are good. A fall to 0 is a restart, whatever its cause; often: see "
            "logs/ROLE.log.",
            SECONDS,
            (Query(f"time() - {q.gauge(m.PROCESS_START, 'max', ('role',))}", "{{role}}"),),
            width=8,
            height=10,
            low=0,
        ),
    ),
)

WORKERS = Row(
    "Workers, and the versions that they serve",
    (
        Panel(
            "Workers started anew",
            "Generation and judge workers that supervision, or the publisher, started anew, by why.",
            "Flat is good. One worker again and again: its node or GPU. Many at once: a node is gone. deadline: raise "
            "push.deadlines, or look at the network.",
            COUNT,
            (
                Query(q.count(m.RESTARTS, ("role", "cause")), "{{role}}: {{cause}}"),
                Query(q.count(m.EVICTIONS, ("player", "reason")), "{{player}}, by the publisher: {{reason}}"),
            ),
            low=0,
        ),
        Panel(
            "Versions that a worker is behind",
            "How many versions each generation worker is behind the newest; a worker that starts is not shown.",
            "0 or 1 is good. One worker that stays behind: its pushes fail. All behind: versions come faster than "
            "they are pushed.",
            per("versions"),
            (
                Query(
                    f"{q.gauge(m.VERSION, 'max', ('player',))} - on (player) group_right () "
                    f"({q.gauge(m.WORKER_VERSION, 'max', ('player', 'worker'))} >= 0)",
                    "{{player}} {{worker}}",
                ),
            ),
            steps=((None, "green"), (2, "orange"), (4, "red")),
            low=0,
        ),
        Panel(
            "Pushes that failed",
            "Pushes to single workers that failed, by why; the worker gets a newer version next, or is replaced.",
            "Flat is good. A reason that grows: see logs/publisher-0.log. A transport that fails twice is off until the "
            "workers change.",
            COUNT,
            (Query(q.count(m.PUSHES, ("player", "outcome"), outcome="!loaded"), "{{player}}: {{outcome}}"),),
            low=0,
        ),
        Panel(
            "Pushes a minute",
            "Pushes to single workers that were loaded, and versions that were superseded before any worker got them "
            "(in all).",
            "Pushes steady is good. Superseded ones are no fault, but many say that push.every is too small.",
            COUNT,
            (
                Query(q.per_minute(m.PUSHES, ("player",), outcome="loaded"), "{{player}} loaded a minute"),
                Query(q.count(m.SUPERSEDED, ("player",)), "{{player}} superseded"),
            ),
            low=0,
            interval="2m",
            width=12,
        ),
        Panel(
            "Dropped, and counted",
            "Held-out measurements that were due and gave no point, and records that a sink (W&B, MLflow, "
            "TensorBoard) did not take in time.",
            "A few near the end are normal. busy, late: lower heldout.share. failed: see logs/driver-0.log. A sink's "
            "records are in metrics.parquet all the same.",
            COUNT,
            (
                Query(q.count(m.HELDOUT_SKIPPED, ("reason",)), "held-out: {{reason}}"),
                Query(q.count(m.SINK_DROPPED, ("sink",)), "sink: {{sink}}"),
            ),
            low=0,
            width=12,
        ),
    ),
)

BOARD = Board(
    "advgame-health",
    "AdvGame / Health",
    "Does every part live, serve the newest version, and lose nothing?",
    (ALIVE, WORKERS),
)
