"""The board of throughput: who waits for whom, and where the time of learners, engines, judge and pushes goes."""

from cluster.observe import promql as q
from cluster.observe.boards.panel import BYTES_A_SECOND, COUNT, SECONDS, SHARE, Board, Panel, Query, Row, per
from protocol import metrics as m

SLOW = "2m"  # shortest step of what happens seldom: a shorter one would show mostly gaps
BY = ("player",)


WAITS = Row(
    "Who waits for whom",
    (
        Panel(
            "Rollout workers wait",
            "Share of the time in which a rollout worker waits for a game to be admitted, by what it waits for.",
            "staleness: the learners are the slow side. engines: they bear no more games. judge_alarm: the judge "
            "fails. Near 0 means that games are the slow side.",
            SHARE,
            (Query(q.rate(m.WAITING, ("cause",), side="rollout"), "{{cause}}"),),
            "stack",
            width=6,
            low=0,
            high=1,
        ),
        Panel(
            "Learners wait",
            "Share of the time in which a learner waits for its games, by why.",
            "games: playing and judging are the slow side; the next two panels say which. turn: the other player's "
            "turn. Low is good.",
            SHARE,
            (Query(q.rate(m.WAITING, ("side", "cause"), side="~$player"), "{{side}}: {{cause}}"),),
            width=6,
            low=0,
            high=1,
        ),
        Panel(
            "Engines busy",
            "Share of the time in which a generation worker has at least one sample to work at, the mean of each "
            "player's.",
            "Near 100 % while learners wait: add generation workers. Low while learners wait: games wait for the "
            "judge, or too few are played at once.",
            SHARE,
            (Query(q.rate(m.ENGINE_BUSY, BY, how="avg"), "{{player}}"),),
            width=6,
            low=0,
            high=1,
        ),
        Panel(
            "Judge busy",
            "Share of the time in which a judge worker has at least one question in hand, the mean of all.",
            "Near 100 % while learners wait: add judge workers, or ask less of each game.",
            SHARE,
            (Query(q.rate(m.JUDGE_BUSY, how="avg"), "judge"),),
            width=6,
            low=0,
            high=1,
        ),
    ),
)

LEARNERS = Row(
    "Learners",
    (
        Panel(
            "Where a learner's time goes",
            "Share of its time that a learner computes, waits for its games, and stands still to stage a version.",
            "Computing should take most. Waiting: see above. Staging above 5 %: push less often (push.every).",
            SHARE,
            (
                Query(q.raw_rate(m.STEP_SECONDS, BY, "sum"), "{{player}} computes"),
                Query(q.raw_rate(m.LEASE_SECONDS, BY, "sum"), "{{player}} waits"),
                Query(q.raw_rate(m.STAGE_SECONDS, BY, "sum"), "{{player}} stages"),
            ),
            low=0,
            width=6,
            interval=SLOW,
        ),
        Panel(
            "Seconds of a step",
            "Seconds that a step computes; waiting for games is not counted.",
            "Steady is good. Growing with the length of completions is natural; jumps of both players at once: "
            "another job on the node.",
            SECONDS,
            (
                Query(q.quantile(0.5, m.STEP_SECONDS, BY), "{{player}} p50"),
                Query(q.quantile(0.95, m.STEP_SECONDS, BY), "{{player}} p95"),
            ),
            low=0,
            width=6,
            interval=SLOW,
        ),
        Panel(
            "Tokens learned a second",
            "Tokens of learned batches, all ranks of a player together.",
            "The learner's speed. Compare with tokens generated: what is generated and never learned was a tie or "
            "went stale.",
            per("tokens/s"),
            (Query(q.rate(m.LEARNED_TOKENS, BY), "{{player}}"),),
            low=0,
            width=6,
            interval=SLOW,
        ),
        Panel(
            "Use of the GPUs (MFU)",
            "FLOPs that the newest step's tokens need, over what the GPUs can do. On GPUs only.",
            "30 to 50 % is good for a 7B model. Far lower: micro-batches too small, or communication between nodes.",
            SHARE,
            (Query(q.gauge(m.MFU, "max", BY), "{{player}}"),),
            low=0,
            width=6,
            steps=((None, "red"), (0.15, "orange"), (0.3, "green")),
        ),
    ),
)

GENERATION = Row(
    "Generation",
    (
        Panel(
            "Tokens generated a second",
            "Tokens of answered asks, all engines of a player together.",
            "The engines' speed. It falls with few games in flight, and while versions are pushed.",
            per("tokens/s"),
            (Query(q.rate(m.GENERATED_TOKENS, BY), "{{player}}"),),
            low=0,
        ),
        Panel(
            "Queue of the engines",
            "Samples that the engines work at, and requests that wait for a place or for KV cache.",
            "Some running, none waiting is good. Waiting for long: engines are full; lower game.in_flight or add "
            "workers.",
            COUNT,
            (
                Query(q.gauge(m.ENGINE_RUNNING, "sum", BY), "{{player}} running"),
                Query(q.gauge(m.ENGINE_WAITING, "sum", BY), "{{player}} waiting"),
            ),
            low=0,
        ),
        Panel(
            "KV cache in use",
            "Share of the KV cache's blocks that requests hold: the fullest engine of each player.",
            "Up to 90 % is good use. At 100 % requests are preempted and computed again.",
            SHARE,
            (Query(q.gauge(m.KV_USAGE, "max", BY), "{{player}}"),),
            steps=((None, "green"), (0.9, "orange"), (0.98, "red")),
            low=0,
            high=1,
        ),
        Panel(
            "Asks of the engines",
            "Asks that generation workers took, by how they ended.",
            "answered should be nearly all. late: over generation.deadline_s. broken: the engine died. too_long: the "
            "prompt had no room.",
            per("asks/s"),
            (Query(q.rate(m.REQUESTS, ("player", "outcome")), "{{player}} {{outcome}}"),),
            low=0,
        ),
        Panel(
            "Preempted requests",
            "Requests that lost their KV cache to others and were computed again; since the engines started.",
            "Flat is good. Growing: too many games at once; set generation.backpressure, or give the cache more "
            "memory.",
            COUNT,
            (Query(q.count(m.PREEMPTIONS, BY), "{{player}}"),),
            low=0,
        ),
        Panel(
            "Start of an engine",
            "Seconds that the last start of a player's slowest engine took, its first version included.",
            "What each restart costs. Minutes: weights come from a slow disk, or compilation is not cached.",
            SECONDS,
            (Query(q.gauge(m.ENGINE_START, "max", BY), "{{player}}"),),
            "stat",
        ),
    ),
)

JUDGE = Row(
    "Judge and routing",
    (
        Panel(
            "Verdicts a second",
            "Verdicts that judge workers gave, and those that were remembered and asked of no judge.",
            "Remembered ones are free. The judge's own flat at its highest while it is busy: that is what it can do.",
            per("verdicts/s"),
            (Query(q.rate(m.JUDGE_VERDICTS), "judged"), Query(q.rate(m.CACHE_HITS), "remembered")),
            low=0,
            width=6,
        ),
        Panel(
            "Seconds of a judge's batch",
            "How long a batch of questions took at a judge worker.",
            "p99 far above p50: retries, or one long text holds the batch. Near judge.deadline_s verdicts fail.",
            SECONDS,
            tuple(Query(q.quantile(p, m.JUDGE_SECONDS), f"p{100 * p:.0f}") for p in (0.5, 0.9, 0.99)),
            low=0,
            width=6,
            interval=SLOW,
        ),
        Panel(
            "Tokens of the judge",
            "Tokens that a judge model reads and writes a second.",
            "Reading is most of it. Writing that grows: the judge model reasons longer, and costs more.",
            per("tokens/s"),
            (Query(q.rate(m.JUDGE_TOKENS, ("direction",)), "{{direction}}"),),
            low=0,
            width=6,
        ),
        Panel(
            "Asks that did not go straight",
            "Share of the router's asks that went to another worker (moved), to a second one as well (hedged), or had "
            "no answer (expired, condemned).",
            "Below 1 % is good. moved: workers restart. hedged: a slow worker. expired: no worker answers in time; "
            "condemned: an ask that breaks workers.",
            SHARE,
            (
                Query(
                    f"{q.raw_rate(m.ASKS, ('pool', 'outcome'), outcome='!taken')} / on (pool) group_left () "
                    f"({q.raw_rate(m.ASKS, ('pool',), outcome='taken')} > 0)",
                    "{{pool}} {{outcome}}",
                ),
            ),
            low=0,
            width=6,
            interval=SLOW,
        ),
    ),
)

PUSHES = Row(
    "Pushes of new versions",
    (
        Panel(
            "Seconds of a push by phase",
            "Mean seconds of each phase of a push to a worker; whole is from sending to the worker's answer.",
            "load and send grow with the model. A phase near its deadline (push.deadlines) will fail soon.",
            SECONDS,
            (Query(q.mean(m.PUSH_SECONDS, ("player", "phase")), "{{player}} {{phase}}"),),
            low=0,
            width=6,
            interval=SLOW,
        ),
        Panel(
            "Seconds that generation stands still",
            "How long a worker's generation is paused for a push.",
            "As short as loading the weights. Longer: verifying, or requests that are slow to pause.",
            SECONDS,
            tuple(Query(q.quantile(p, m.PAUSE_SECONDS, BY), f"{{{{player}}}} p{100 * p:.0f}") for p in (0.5, 0.95)),
            low=0,
            width=6,
            interval=SLOW,
        ),
        Panel(
            "Generation lost to pushes",
            "Share of the generation workers' time in which they stand still for a push.",
            "Below 5 % is good. Higher: push less often (push.every), or use a native transport.",
            SHARE,
            (
                Query(
                    f"{q.raw_rate(m.PAUSE_SECONDS, BY, 'sum')} / on (player) "
                    f"(count by (player) ({q.select(m.ENGINE_RUNNING)}) > 0)",
                    "{{player}}",
                ),
            ),
            low=0,
            steps=((None, "green"), (0.05, "orange"), (0.2, "red")),
            width=6,
            interval=SLOW,
        ),
        Panel(
            "Weights loaded a second",
            "Bytes of weights that workers loaded.",
            "Peaks with every version. Compare with the network: at its limit, pushes are the bottleneck.",
            BYTES_A_SECOND,
            (Query(q.rate(m.PUSH_BYTES, BY), "{{player}}"),),
            low=0,
            width=6,
            interval=SLOW,
        ),
    ),
)

BOARD = Board(
    "advgame-throughput",
    "AdvGame / Throughput",
    "What bounds the run, and where everybody's time goes.",
    (WAITS, LEARNERS, GENERATION, JUDGE, PUSHES),
)
