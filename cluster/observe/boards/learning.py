"""The board of learning: how far the learners are, their losses, what became of the policies, what they learn from."""

from cluster.observe import promql as q
from cluster.observe.boards.panel import COUNT, SECONDS, SHARE, Board, Panel, Query, Row, per
from protocol import metrics as m

SLOW = "2m"  # shortest step of what happens once a step: a shorter one would show mostly gaps
BY = ("player",)


def _newest(metric: m.Metric, title: str, what: str, read: str, unit: str = COUNT, log: bool = False) -> Panel:
    """A number that a learner tells of its newest step."""
    return Panel(title, what, read, unit, (Query(q.gauge(metric, "max", BY), "{{player}}"),), log=log)


PROGRESS = Row(
    "Progress",
    (
        Panel(
            "Done",
            "Optimizer steps done, of those that each player is to take.",
            "Both rise together. One far behind: it waits for its games (board Throughput), or its rows are evicted.",
            SHARE,
            (
                Query(
                    f"{q.gauge(m.STEP, 'max', BY)} / on () group_left () ({q.gauge(m.TARGET_STEPS, 'max')} > 0)",
                    "{{player}}",
                ),
            ),
            "stat",
            width=6,
            height=5,
            low=0,
            high=1,
        ),
        Panel(
            "Time left",
            "Seconds that the slower player's remaining steps take at the pace of its recent ones; 0 before that is "
            "known.",
            "Falls by a second a second. Growing: steps become slower.",
            SECONDS,
            (Query(q.gauge(m.REMAINING, "max"), "left"),),
            "stat",
            width=6,
            height=5,
        ),
        Panel(
            "Steps an hour",
            "Optimizer steps taken, at the pace of the last minutes.",
            "Steady is good. The board Throughput shows what bounds it.",
            per("steps/h"),
            (Query(q.or_zero(f"3600 * {q.raw_rate(m.STEPS, BY, outcome='taken')}", BY), "{{player}}"),),
            "stat",
            width=6,
            height=5,
            interval=SLOW,
            decimals=0,
        ),
        Panel(
            "Steps that a crash would repeat",
            "Steps since the newest complete checkpoint.",
            "A saw-tooth up to learners.PLAYER.checkpoint_every. Higher: checkpoints fail or are slow, see "
            "logs/learner-*.log.",
            COUNT,
            (Query(f"{q.gauge(m.STEP, 'max', BY)} - {q.gauge(m.CHECKPOINT_STEP, 'max', BY)}", "{{player}}"),),
            "stat",
            width=6,
            height=5,
        ),
        Panel(
            "Steps",
            "Optimizer steps done, and the number to be done.",
            "Straight lines are good. A flat piece is a stall: look at the same time on the boards Throughput and "
            "Health.",
            COUNT,
            (
                Query(q.gauge(m.STEP, "max", BY), "{{player}}"),
                Query(q.gauge(m.TARGET_STEPS, "max"), "to be done", limit=True),
            ),
            width=12,
            low=0,
        ),
        Panel(
            "Steps without effect",
            "Steps that were skipped because the gradient was not finite, and empty ones whose games had nothing to "
            "teach.",
            "Flat at 0 is good. Skipped ones in a row: lower the learning rate, or use bf16. Empty ones: see the ties "
            "on the board Game.",
            COUNT,
            (Query(q.count(m.STEPS, ("player", "outcome"), outcome="!taken"), "{{player}} {{outcome}}"),),
            width=12,
            low=0,
        ),
    ),
)

LOSS = Row(
    "Loss and gradients, of the newest step",
    (
        _newest(
            m.LOSS,
            "Loss",
            "The loss of the newest step.",
            "DPO begins at 0.69 (ln 2) and should sink below it; IPO sinks from 1 / (4 beta^2); GRPO's says little. A "
            "jump and no return: the player diverges.",
        ),
        _newest(
            m.ACCURACY,
            "Accuracy of preferences",
            "Share of the pairs whose chosen item the policy prefers more than its reference does. DPO and IPO only.",
            "From 50 % upwards. At 100 % for long it learns nothing new, or overfits. Below 50 %: chosen and rejected "
            "are mixed up.",
            SHARE,
        ),
        _newest(
            m.KL,
            "KL to the reference",
            "How far the policy is from its reference, estimated on the step's items.",
            "Slow growth is learning. A steep rise comes before collapse: raise the loss' beta or lower the learning "
            "rate.",
            per("nats"),
        ),
        _newest(
            m.GRAD_NORM,
            "Gradient norm",
            "Global norm of the gradient before clipping; logarithmic.",
            "In one range of a factor of ten or so. Spikes are clipped; a steady climb is not healthy. 0: nothing is "
            "learned.",
            log=True,
        ),
        _newest(
            m.LEARNING_RATE,
            "Learning rate",
            "The schedule's learning rate.",
            "As the recipe says: a rise over the warm-up, then its schedule. After a resume it goes on where it was.",
        ),
        _newest(
            m.EMA_DISTANCE,
            "Distance from the moving average",
            "L2 distance of the policy from its moving average, over the policy's norm; where reference or sampler is "
            "an average.",
            "A plateau is good: the average follows. Growing without end: the average is too slow, and with it the "
            "reference.",
            SHARE,
        ),
    ),
)

POLICIES = Row(
    "What became of the policies",
    (
        Panel(
            "Surprisal a token",
            "Mean of -log p of the tokens that were sampled, p before temperature and top-p: an estimate of the policy's entropy "
            "where sampling.temperature and sampling.top_p are 1, and smaller below.",
            "A slow fall is learning. Towards 0 the policy writes one text only: entropy collapse. Rising: it becomes "
            "random. Compare runs of one temperature only.",
            per("nats"),
            (Query(q.divide(q.raw_rate(m.SURPRISAL, BY), q.raw_rate(m.GENERATED_TOKENS, BY)), "{{player}}"),),
            low=0,
            interval=SLOW,
        ),
        Panel(
            "Length of completions",
            "Tokens of a completion, the middle and the long ones.",
            "A band that stays is good. Shrinking to a few tokens: short refusals. Growing to the limit: it is paid "
            "for length.",
            per("tokens"),
            (
                Query(q.quantile(0.5, m.COMPLETION_TOKENS, BY), "{{player}} p50"),
                Query(q.quantile(0.95, m.COMPLETION_TOKENS, BY), "{{player}} p95"),
            ),
            low=0,
            interval=SLOW,
        ),
        Panel(
            "Length of completions, all of them",
            "The same as a heat map; choose one player above to see it alone.",
            "A band at the top is the length limit: those are too_long. A single sharp line: one text is written "
            "again and again.",
            per("tokens"),
            (Query(q.heat(m.COMPLETION_TOKENS), "{{le}}"),),
            "heat",
            interval=SLOW,
        ),
    ),
)

ROWS = Row(
    "What they learn from",
    (
        Panel(
            "Staleness",
            "Versions between the one that a learned game was asked for under and the one that it was learned at, and "
            "its bound.",
            "Low is nearly on-policy. At the bound (replay.max_staleness) games wait for the learners, and rows that "
            "are older are evicted.",
            per("versions"),
            (
                Query(q.mean(m.STALENESS, BY), "{{player}} mean"),
                Query(q.quantile(0.95, m.STALENESS, BY), "{{player}} p95"),
                Query(q.gauge(m.STALENESS_BOUND, "max"), "bound", limit=True),
            ),
            low=0,
            interval=SLOW,
            width=6,
        ),
        Panel(
            "What becomes of rows",
            "Rows a minute: appended, then learned, or evicted by reason.",
            "Learned near appended is good. tie: no winner. stale, capacity: wasted work, the learner is too slow. "
            "finished: it took its last step.",
            per("rows/min"),
            (Query(q.per_minute(m.ROWS, ("player", "outcome")), "{{player}} {{outcome}}"),),
            low=0,
            interval=SLOW,
            width=6,
        ),
        Panel(
            "Games that wait for a step",
            "Finished games in the buffer, and how many a step takes.",
            "Above one step's worth: the learner is the slow side. Always below: it waits for games.",
            COUNT,
            (
                Query(q.gauge(m.GAMES_HELD, "max", BY), "{{player}}"),
                Query(q.gauge(m.BATCH_GAMES, "max", BY), "{{player}} a step", limit=True),
            ),
            low=0,
            width=6,
        ),
        Panel(
            "Rows held",
            "Rows that wait for a step or for the checkpoint that contains it.",
            "A saw-tooth with the checkpoints. Growing without end: checkpoints do not complete, and the buffer's "
            "disk fills.",
            COUNT,
            (Query(q.gauge(m.ROWS_HELD, "max", BY), "{{player}}"),),
            low=0,
            width=6,
        ),
    ),
)

BOARD = Board(
    "advgame-learning",
    "AdvGame / Learning",
    "Do both learners learn, and do they stay healthy?",
    (PROGRESS, LOSS, POLICIES, ROWS),
)
