"""Metrics that the replay buffer sets: games, rows, staleness, waiting, verdicts. See `protocol.metrics`."""

from typing import Literal, get_args

from protocol.metrics.metric import counter, gauge, histogram
from protocol.roles import PLAYERS
from protocol.states import AttackState, ResponseState

SIDES = ("rollout", *PLAYERS)  # who waits
WaitCause = Literal["games", "turn", "staleness", "engines", "judge_alarm"]
VERSIONS = (0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 8.5, 12.5, 16.5, 32.5)  # between whole numbers: Ray takes no bound of 0


GAMES_STARTED = counter("advgame_games_started_total", "1", "Distinct games dealt.", "replay")
GAMES = counter(
    "advgame_games_total",
    "1",
    "Games that ended: finished, or given up by reason.",
    "replay",
    ("outcome",),
    sound=(("outcome", ("finished",)),),
)
GAMES_REDEALT = counter(
    "advgame_games_redealt_total", "1", "Times that a lost game was dealt again.", "replay", only="a game was lost"
)
GAMES_IN_FLIGHT = gauge("advgame_games_in_flight", "1", "Games being played.", "replay")
GAMES_LIMIT = gauge(
    "advgame_games_limit",
    "1",
    "Games that may be played at once, as far as the engines bear them (generation.backpressure).",
    "replay",
    only="generation.backpressure is set",
)
ATTACKS = counter(
    "advgame_attacks_total",
    "1",
    "Attacks of finished games, by how they ended and their seed's category.",
    "replay",
    ("state", "category"),
    values=(("state", get_args(AttackState)),),
    sound=(("state", ("ok",)),),
)
RESPONSES = counter(
    "advgame_responses_total",
    "1",
    "Responses of finished games, by how they ended and their seed's category.",
    "replay",
    ("state", "category"),
    values=(("state", get_args(ResponseState)),),
    sound=(("state", ("ok",)),),
)
REWARD = gauge(
    "advgame_reward",
    "1",
    "Mean reward of the latest rows by their seed's category, penalties included.",
    "replay",
    ("player", "category"),
)
ROWS = counter(
    "advgame_rows_total",
    "1",
    "Rows, by what became of them: appended, then learned or evicted by reason (tie, stale, ...).",
    "replay",
    ("player", "outcome"),
    sound=(("outcome", ("appended", "learned")),),
)
ROWS_HELD = gauge("advgame_rows_held", "1", "Rows that wait for a step or for its checkpoint.", "replay", ("player",))
GAMES_HELD = gauge("advgame_games_held", "1", "Finished games that wait for a step.", "replay", ("player",))
BATCH_GAMES = gauge("advgame_batch_games", "1", "Games of one step.", "replay", ("player",))
STALENESS = histogram(
    "advgame_staleness_versions",
    "1",
    "Versions between the one that a learned game was asked for under and the one that it was learned at.",
    "replay",
    VERSIONS,
    ("player",),
)
STALENESS_BOUND = gauge("advgame_staleness_bound_versions", "1", "The bound on it (replay.max_staleness).", "replay")
WAITING = counter(
    "advgame_waiting_seconds_total",
    "seconds",
    "Seconds in which a side waited for the other: rollout workers for admission, a learner for its games; by cause.",
    "replay",
    ("side", "cause"),
    values=(("side", SIDES), ("cause", get_args(WaitCause))),
    sound=(("side", PLAYERS), ("cause", ("games",))),
)
VERDICTS = counter(
    "advgame_verdicts_total",
    "1",
    "Verdicts of finished games: given, or failed.",
    "replay",
    ("outcome",),
    values=(("outcome", ("given", "failed")),),
    sound=(("outcome", ("given",)),),
)
COMPARISONS = counter(
    "advgame_comparisons_total",
    "1",
    "Compared pairs of finished games: both orders agreed, or the winner flipped with the order.",
    "replay",
    ("outcome",),
    values=(("outcome", ("agreed", "flipped")),),
    only="pairs are judged in both orders",
    sound=(("outcome", ("agreed",)),),
)
JUDGE_ALARM = gauge(
    "advgame_judge_alarm", "1", "1 while the judge's alarm is up and no game is dealt, else 0.", "replay"
)
JUDGE_FAILURE = gauge(
    "advgame_judge_failure_ratio",
    "ratio",
    "Share of the latest verdicts (judge.alarm.window of them) that could not be had.",
    "replay",
)
