"""Alerts about what is learned: steps, staleness, held-out scores, the policies themselves."""

from cluster.observe.alerts.alert import Alert
from cluster.observe.alerts.promql import increase, mean, quantile, select
from cluster.observe.alerts.run import PLAYING
from cluster.observe.alerts.templates import COUNT, NUMBER, PLAYER, RUN, SECONDS, SHARE
from protocol import metrics as m

BY_PLAYER = "run, player"
MEDIANS = 10  # so many medians of a step, its wait included, without a step: not noise, but something that stands still
SHORTEST_S = 300  # and never less than this: a restart of a worker, or a measurement, may cost a fast run as much

# Seconds since the step number changed, to the minute. It is kept for six hours beyond the learner's process.
_SINCE_STEP_S = f"time() - max by ({BY_PLAYER}) (max_over_time(timestamp(changes({select(m.STEP)}[2m]) > 0)[6h:1m]))"
_MEDIAN_S = f"({quantile(0.5, m.STEP_SECONDS, BY_PLAYER, '6h')} + {quantile(0.5, m.LEASE_SECONDS, BY_PLAYER, '6h')})"
_STEPS_LEFT = (
    f"max by ({BY_PLAYER}) (last_over_time({select(m.STEP)}[6h])) "
    f"< on (run) group_left max by (run) ({select(m.TARGET_STEPS)})"
)
_WAITS_FOR_TURN = increase(select(m.WAITING, cause="turn"), "run, side", "5m")
_ENTROPY = (
    f"(sum by ({BY_PLAYER}) (rate({select(m.SURPRISAL)}[15m])) "
    f"/ sum by ({BY_PLAYER}) (rate({select(m.GENERATED_TOKENS)}[15m])))"
)
_LENGTH, _LENGTH_BEFORE = (mean(m.COMPLETION_TOKENS, BY_PLAYER, window) for window in ("15m", "6h offset 30m"))
_REWARD = select(m.REWARD)

NO_STEP = Alert(
    name="AdvgameNoLearnerStep",
    severity="critical",
    expr=f"""\
{_SINCE_STEP_S}
> on ({BY_PLAYER})
clamp_min({MEDIANS} * {_MEDIAN_S}, {SHORTEST_S})
and on ({BY_PLAYER}) {_STEPS_LEFT}
and on (run) {PLAYING}
unless on ({BY_PLAYER}) label_replace({_WAITS_FOR_TURN} > 0, "player", "$1", "side", "(.+)")""",
    wait="1m",
    summary=f"The {PLAYER} of {RUN} takes no step",
    description=f"The last step of the {PLAYER} in {RUN} was {SECONDS} ago: more than {MEDIANS} times the median of its steps, "
    f"and more than {SHORTEST_S} s.",
)
STALENESS = Alert(
    name="AdvgameStalenessAtBound",
    severity="warning",
    # The bound is a whole number, and buckets lie between whole numbers: half of the games, or more, were learned at the bound. A
    # bound of 0 (synchronous) is always reached.
    expr=f"""\
{quantile(0.5, m.STALENESS, BY_PLAYER, "15m")}
>= on (run) group_left ()
(max by (run) ({select(m.STALENESS_BOUND)}) > 0) - 0.5""",
    wait="10m",
    summary=f"The {PLAYER} of {RUN} learns from games as old as is allowed",
    description=f"Half of the {PLAYER}'s games in {RUN} are learned {NUMBER} versions after they were asked for, which is the "
    "bound (replay.max_staleness): games wait for the learner, and older ones are lost.",
)
OVER_REFUSAL = Alert(
    name="AdvgameOverRefusalUp",
    severity="warning",
    # A share of the held-out seeds is as few as 32 of a category: 7 points of noise.
    expr=f"""\
max by (run) ({select(m.HELDOUT, score="over_refusal")})
- on (run)
min by (run) (min_over_time({select(m.HELDOUT, score="over_refusal")}[7d])) > 0.15""",
    wait="10m",
    summary=f"The defender of {RUN} refuses more and more benign asks",
    description=f"Over-refusal on the held-out benign seeds of {RUN} is {SHARE} (in points) above its lowest score.",
)
ENTROPY = Alert(
    name="AdvgameEntropyCollapse",
    severity="warning",
    expr=f"{_ENTROPY} < on ({BY_PLAYER}) 0.25 * max_over_time({_ENTROPY}[12h:10m])",
    wait="10m",
    summary=f"The {PLAYER} of {RUN} says the same again and again",
    description=f"The {PLAYER}'s samples in {RUN} have {NUMBER} nats of surprisal a token, less than a quarter of what "
    "they once had: it has collapsed to few texts, and games teach little.",
)
LENGTH = Alert(
    name="AdvgameLengthShift",
    severity="warning",
    expr=f"""\
{_LENGTH} < on ({BY_PLAYER}) 0.5 * ({_LENGTH_BEFORE})
or
{_LENGTH} > on ({BY_PLAYER}) 2 * ({_LENGTH_BEFORE})""",
    wait="10m",
    summary=f"The {PLAYER}'s completions in {RUN} changed their length",
    description=f"A completion of the {PLAYER} in {RUN} has {COUNT} tokens: less than half, or more than twice, of the hours "
    "before.",
)
REWARDS = Alert(
    name="AdvgameRewardsFlat",
    severity="warning",
    expr=f"""\
{increase(select(m.ROWS, outcome="tie"), BY_PLAYER, "30m")}
/
{increase(select(m.ROWS, outcome="appended"), BY_PLAYER, "30m")} > 0.9
and on ({BY_PLAYER})
max by ({BY_PLAYER}) (max_over_time({_REWARD}[30m]) - min_over_time({_REWARD}[30m])) < 0.05""",
    wait="10m",
    summary=f"The {PLAYER} of {RUN} has nothing to learn from",
    description=f"{SHARE} of the {PLAYER}'s rows in {RUN} are ties, and its rewards have not moved for half an hour.",
)

ALERTS = (NO_STEP, STALENESS, OVER_REFUSAL, ENTROPY, LENGTH, REWARDS)
