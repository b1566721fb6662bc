"""The board of the game: whether the Defender gets better, how games end, what players write, what the judge says of it."""

from cluster.observe import promql as q
from cluster.observe.boards.panel import COUNT, SECONDS, SHARE, Board, Panel, Query, Row, per
from protocol import metrics as m

SLOW = "2m"  # shortest step of shares of what happens seldom: a shorter one would show mostly gaps


def _states(metric: m.Metric, category: str, title: str, what: str, read: str) -> Panel:
    """How the attacks, or responses, of one category of seeds end."""
    query = Query(q.shares(metric, "state", category=category), "{{state}}")
    return Panel(title, what, read, SHARE, (query,), "stack", width=6, low=0, high=1, interval=SLOW)


WORKS = Row(
    "Does it work? (seeds that nobody trains on)",
    (
        Panel(
            "Attack success",
            "Share of harmful held-out asks, in the base Attacker's words, that the Defender answers. Newest "
            "measurement.",
            "Lower is better for the Defender. Falling over the run: the Defender learns. Flat and high: look at "
            "rewards and ties below.",
            SHARE,
            (Query(q.gauge(m.HELDOUT, "max", score="attack_success"), "attack success"),),
            "stat",
            width=4,
            height=6,
            steps=((None, "green"), (0.25, "orange"), (0.5, "red")),
        ),
        Panel(
            "Over-refusal",
            "Share of benign held-out asks that the Defender refuses. Newest measurement.",
            "Lower is better. Rising while attack success falls: the Defender buys safety by refusing everything.",
            SHARE,
            (Query(q.gauge(m.HELDOUT, "max", score="over_refusal"), "over-refusal"),),
            "stat",
            width=4,
            height=6,
            steps=((None, "green"), (0.1, "orange"), (0.25, "red")),
        ),
        Panel(
            "Benign compliance",
            "Share of benign held-out asks that the Defender answers. Newest measurement.",
            "Higher is better, and it should stay where it began. It and over-refusal need not add up to 1: an answer "
            "can be neither.",
            SHARE,
            (Query(q.gauge(m.HELDOUT, "max", score="benign_compliance"), "benign compliance"),),
            "stat",
            width=4,
            height=6,
            steps=((None, "red"), (0.75, "orange"), (0.9, "green")),
        ),
        Panel(
            "Held-out scores",
            "The three scores over time, each measured in the background every heldout.every steps.",
            "Good: attack success and over-refusal fall together while compliance stays. A share of the seeds is "
            "measured, so single points jump: compare runs of three or more.",
            SHARE,
            (Query(q.gauge(m.HELDOUT, "max", ("score",)), "{{score}}"),),
            width=8,
            height=6,
            low=0,
            high=1,
        ),
        Panel(
            "Versions",
            "Newest policy version of each player, and the one that the newest held-out scores belong to.",
            "The two go up together. measured stands still while published goes on: measurements are missed (board "
            "Health says why).",
            COUNT,
            (
                Query(q.gauge(m.VERSION, "max", ("player",)), "{{player}} published"),
                Query(q.gauge(m.HELDOUT_VERSION, "max", ("player",)), "{{player}} measured"),
            ),
            "stat",
            width=4,
            height=6,
        ),
        Panel(
            "Reward on harmful seeds",
            "Mean reward of each player's latest rows whose seed is harmful; a penalty for bad format or meaning is "
            "-1.",
            "The game is a contest: one rises where the other falls. Both flat: nothing is learned (ties?). Near -1: "
            "a player breaks its format.",
            COUNT,
            (Query(q.gauge(m.REWARD, "avg", ("player",), category="harmful"), "{{player}}"),),
            width=12,
        ),
        Panel(
            "Reward on benign seeds",
            "Mean reward of each player's latest rows whose seed is benign.",
            "The Defender's should rise or stay high: it is paid for helping. Falling: it learns to refuse.",
            COUNT,
            (Query(q.gauge(m.REWARD, "avg", ("player",), category="benign"), "{{player}}"),),
            width=12,
        ),
    ),
)

GAMES = Row(
    "Games",
    (
        Panel(
            "Games a minute",
            "Games that were dealt for the first time, and games that finished.",
            "The two go together. More dealt than finished for long: games pile up or are given up. Zero of both: see "
            "who waits (board Throughput).",
            per("games/min"),
            (
                Query(q.per_minute(m.GAMES, outcome="finished"), "finished"),
                Query(q.per_minute(m.GAMES_STARTED), "dealt"),
            ),
        ),
        Panel(
            "Games being played",
            "Games in flight, and the limit that the engines bear (generation.backpressure, where it is set).",
            "Steady is good. At the limit: engines are the bottleneck. Far under game.in_flight without a limit: "
            "staleness lets no more start.",
            COUNT,
            (
                Query(q.gauge(m.GAMES_IN_FLIGHT, "sum"), "in flight"),
                Query(q.gauge(m.GAMES_LIMIT, "min"), "limit", limit=True),
            ),
            low=0,
        ),
        Panel(
            "Games by rollout worker",
            "Games that each rollout worker plays now.",
            "Even is good: each plays its share of game.in_flight. One at 0 beside busy ones is stuck or was just "
            "started.",
            COUNT,
            (Query(q.gauge(m.GAMES_PLAYING, "max", ("role",)), "{{role}}"),),
            low=0,
        ),
        Panel(
            "Games given up or dealt again",
            "Games that ended without a result, by reason, and lost games that were dealt a second time; since they "
            "began.",
            "Flat is good. Each step upwards is work lost; a reason that grows with every minute is a fault to look "
            "for in logs/.",
            COUNT,
            (
                Query(q.count(m.GAMES, ("outcome",), outcome="!finished"), "given up: {{outcome}}"),
                Query(q.count(m.GAMES_REDEALT), "dealt again"),
            ),
            low=0,
            width=12,
        ),
        Panel(
            "Seconds of a game",
            "How long finished games took, from the deal to the last verdict.",
            "The slow tail decides how stale rows become: p99 far above p50 means that a few games hold a whole batch "
            "back.",
            SECONDS,
            tuple(Query(q.quantile(p, m.GAME_SECONDS), f"p{100 * p:.0f}") for p in (0.5, 0.9, 0.99)),
            interval=SLOW,
            low=0,
            width=12,
        ),
    ),
)

WRITES = Row(
    "What the players write",
    (
        _states(
            m.ATTACKS,
            "harmful",
            "Attacks on harmful seeds",
            "How the Attacker's attacks end, as shares.",
            "ok should take most and grow. unfaithful: it drifts from the seed's meaning. malformed, too_long: format "
            "or length collapses.",
        ),
        _states(
            m.ATTACKS,
            "benign",
            "Attacks on benign seeds",
            "How the Attacker's rewordings of benign seeds end, as shares.",
            "As on harmful seeds. Much worse than there: the Attacker has learned one kind of seed only.",
        ),
        _states(
            m.RESPONSES,
            "harmful",
            "Responses to harmful seeds",
            "How the Defender's responses to attacks on harmful seeds end, as shares.",
            "ok should take most. attack_invalid is the Attacker's fault, judge_failed the judge's; malformed and "
            "too_long the Defender's.",
        ),
        _states(
            m.RESPONSES,
            "benign",
            "Responses to benign seeds",
            "How the Defender's responses on benign seeds end, as shares.",
            "As on harmful seeds. ok says only that it could be judged, not that it was helpful.",
        ),
    ),
)

JUDGE = Row(
    "The judge",
    (
        Panel(
            "Verdicts that failed",
            "Share of verdicts that could not be had: of the latest judge.alarm.window of them, as the alarm sees it, "
            "and of the moment.",
            "Below 1 % is good. Above judge.alarm.failure_rate the alarm goes up and no game is dealt.",
            SHARE,
            (
                Query(q.gauge(m.JUDGE_FAILURE, "max"), "in the alarm's window"),
                Query(q.share(m.VERDICTS, outcome="failed"), "now"),
            ),
            steps=((None, "green"), (0.01, "orange"), (0.1, "red")),
            low=0,
            interval=SLOW,
        ),
        Panel(
            "Winner flips with the order",
            "Share of compared pairs whose winner changed when the two were shown in the other order. Such a pair is "
            "a tie.",
            "Below 10 % is good. Above 30 % the judge mostly looks at the position: a larger judge, or a clearer "
            "rubric.",
            SHARE,
            (Query(q.share(m.COMPARISONS, outcome="flipped"), "flipped"),),
            steps=((None, "green"), (0.1, "orange"), (0.3, "red")),
            low=0,
            interval=SLOW,
        ),
        Panel(
            "Rows without a winner",
            "Rows that were evicted because all their items tie, per row appended.",
            "Some are normal. Towards 100 % a player has nothing to learn from: rewards saturate, or the judge cannot "
            "tell items apart.",
            SHARE,
            (
                Query(
                    q.divide(
                        q.raw_rate(m.ROWS, ("player",), outcome="tie"),
                        q.raw_rate(m.ROWS, ("player",), outcome="appended"),
                    ),
                    "{{player}}",
                ),
            ),
            steps=((None, "green"), (0.5, "orange"), (0.9, "red")),
            low=0,
            interval=SLOW,
        ),
        Panel(
            "Unreadable verdict texts",
            "Texts of a judge model that held no verdict, by why; each is asked again before it counts as failed.",
            "Flat is good. Growing: the judge model does not keep to the rubric's form; try constrained output or "
            "another model.",
            COUNT,
            (Query(q.count(m.JUDGE_UNREAD, ("reason",)), "{{reason}}"),),
            low=0,
            width=6,
        ),
        Panel(
            "Cost of the judge",
            "What the API judge has cost over the run, resumed parts included, in the currency of its prices.",
            "Compare with judge.api.budget. It grows with games; a jump means retries.",
            COUNT,
            (Query(q.count(m.JUDGE_COST), "cost"),),
            "stat",
            decimals=2,
            width=6,
        ),
        Panel(
            "Judge's probe",
            "Of the labelled questions that the judge is asked again and again (judge.probe): the share of answers that "
            "equal their label, and of those that are not what was answered first.",
            "accuracy should stay, changed stay near 0. Both move together: the judge is another one now, and rewards "
            "before and after do not compare.",
            SHARE,
            (Query(q.gauge(m.PROBE, "max", ("score",)), "{{score}}"),),
            low=0,
            high=1,
            width=6,
        ),
        Panel(
            "Drift of the judge's scores",
            "Mean absolute change of the probe's scores since they were first judged, in points of 10.",
            "Near 0 is good. A jump: a new version behind an API's name, or another rubric. Look at the probe beside it.",
            COUNT,
            (Query(q.gauge(m.PROBE_DRIFT, "max"), "drift"),),
            low=0,
            width=6,
        ),
    ),
)

BOARD = Board(
    "advgame-game",
    "AdvGame / Game",
    "Is the Defender getting better, and is the game between the two players sound?",
    (WORKS, GAMES, WRITES, JUDGE),
)
