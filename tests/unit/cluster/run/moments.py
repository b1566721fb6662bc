"""One moment of a run, for the tests of what shows it and sums it up."""

from cluster.replay.rules.tally import JudgeCounts
from cluster.replay.stats import AlarmState, GameCounts, ReplayStats
from judge.stats import PoolStats

REPLAY = ReplayStats(
    answered=True,
    games=GameCounts(started=9, finished=8),
    judge=JudgeCounts(verdicts=80, failed=8, comparisons=20, disagreements=5),
    alarm=AlarmState(raised=2, up_s=0.0, paused_s=31.26, failure_rate=0.1),
    held_games={"attacker": 70, "defender": 3},
    turn="defender",
)
HITS = PoolStats(cache_hits=7)
