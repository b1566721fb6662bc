"""Who learns nothing: the trained players that got no row in so many of their own steps in a row, or in the whole run.

One step without a row is legal: it changes nothing, and the next may have one. Many of them are a run that teaches nothing.

A pure fold over the learners' step reports (no Ray, no clock). Invariants:

- **own steps**: only a player's own steps count. One that waits for its turn takes none, and a frozen one never does.
- **not by chance of polling**: what is found does not depend on how many reports came at once.
- **repeats replace**: a report of step n takes back what was known of n and of later steps: the learner went back.
- **never on a guess**: a step whose report was lost may have had a row.
- **a fresh window after a resume**: what was wrong may have been mended in between. The whole run includes its earlier parts.
- **done is not barren**: a player without a judge of its own (`game.attacker_judge: false`) has nothing to prefer once all that it
  writes is valid. After its first row no window counts for it.

What to say about it is `diagnosis`; it ends nothing.
"""

from collections.abc import Collection, Iterable, Mapping

from cluster.publish.stats import StepReport
from protocol.roles import Player

NOISE = 1e-9  # a spread of GRPO's advantages below it is rounding: rewards are numbers of 0 to 10


def has_row(metrics: Mapping[str, float]) -> bool:
    """Whether a step had anything to learn from: an item with a gradient and, with GRPO, rewards that differ."""
    return metrics["items"] > 0 and metrics.get("advantage_std", 1.0) > NOISE


class BarrenSteps:
    """See the module's docstring.

    Args:
        limit: `run.barren_steps`; None: no window is ever barren.
        players: those that are trained.
        unjudged: those of them that no judge scores.
        earlier: reports of the run's earlier parts.
    """

    def __init__(
        self,
        limit: int | None,
        players: Collection[Player],
        unjudged: Collection[Player] = (),
        earlier: Iterable[StepReport] = (),
    ) -> None:
        self._limit, self._unjudged = limit, unjudged
        self._had_row: dict[Player, dict[int, bool]] = {p: {} for p in players}  # by step, of all parts
        self._first: dict[Player, int] = {}  # step of this part
        for report in earlier:
            self._take(report)

    def note(self, reports: Iterable[StepReport]) -> tuple[Player, ...]:
        """Takes reports in their order. Gives the players whose window became full of steps without a row."""
        barren: list[Player] = []
        for report in reports:
            player = report.player
            self._take(report)
            self._first[player] = min(self._first.get(player, report.step), report.step)
            if player not in barren and self._is_window_full(player, report.step):
                barren.append(player)
        return tuple(barren)

    def find_barren(self, learned: Mapping[Player, int], steps: int) -> tuple[Player, ...]:
        """At the end of learning: the players that got no row in the whole run.

        Args:
            learned: rows that the replay buffer gave each player's steps. 0 tells it even where reports are lost, unless a report
                says otherwise: then it is an old answer, of a buffer that did not give its last one in time.
            steps: of the run.
        """
        return tuple(
            player
            for player, known in self._had_row.items()
            if (learned[player] == 0 and not any(known.values()))
            or all(known.get(step) is False for step in range(1, steps + 1))
        )

    def _take(self, report: StepReport) -> None:
        known = self._had_row[report.player]
        for later in [step for step in known if step > report.step]:
            del known[later]
        known[report.step] = has_row(report.metrics)

    def _is_window_full(self, player: Player, step: int) -> bool:
        known, limit = self._had_row[player], self._limit
        if limit is None or step - limit + 1 < self._first[player]:
            return False
        if player in self._unjudged and any(known.values()):
            return False
        return all(known.get(n) is False for n in range(step - limit + 1, step + 1))
