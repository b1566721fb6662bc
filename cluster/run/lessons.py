"""Whether a run teaches its players anything: ends it when it does not, and says why.

Ties the policy (`supervise.barren`) and the words (`supervise.diagnosis`) to one run. It asks nobody.
"""

from collections.abc import Sequence

from cluster.observe.history import History
from cluster.plan.plan import Plan
from cluster.publish.stats import StepReport
from cluster.replay.stats import ReplayStats
from cluster.run.states import RunFailed
from cluster.supervise.barren import BarrenSteps, has_row
from cluster.supervise.diagnosis import Outcomes, diagnose
from cluster.supervise.skipped import SkippedSteps
from protocol.roles import Player

KEPT = "a resumed run keeps its settings: to change one, start a new run"
OVER = "every step is taken, so there is nothing to go on with: change a setting and start a new run"


class Lessons:
    """The lessons of one run.

    Args:
        history: what the run's earlier parts reported.

    Attributes:
        barren: players that got no row in the whole run; known at the end of learning.
        remark: what a run that may teach nothing (`run.barren_steps: null`) says about them; empty if there are none.
    """

    def __init__(self, plan: Plan, history: History) -> None:
        self._plan, game = plan, plan.rules.game
        judged = {"attacker": game.attacker_judge, "defender": game.defender_judge}
        unjudged = [p for p in plan.trained if not judged[p]]
        self._skipped = SkippedSteps(plan.skipped_steps, plan.trained)
        self._policy = BarrenSteps(plan.barren_steps, plan.trained, unjudged, history.reports())
        self._since: dict[Player, Outcomes] = {} if plan.resumed else {p: Outcomes() for p in plan.trained}
        self.barren: tuple[Player, ...] = ()
        self.remark = ""

    def check(self, reports: Sequence[StepReport], replay: ReplayStats) -> None:
        """Notes new reports.

        Raises:
            RunFailed: a player learned nothing for too many steps in a row, with a diagnosis; or its gradient was not finite.
        """
        if skipped := self._skipped.note(reports):
            limit = f"{self._plan.skipped_steps} steps in a row (run.skipped_steps)"
            head = f"the gradient of {_name(skipped)} was not finite in {limit}, and none of them was applied"
            look = f"look at grad_norm and loss in metrics.parquet before the first of them: {_remedy(skipped)}"
            raise RunFailed(f"{head}\n  {look}\n  {KEPT}")
        barren, now = self._policy.note(reports), Outcomes.of(replay)
        for player in self._plan.trained:
            self._since.setdefault(player, now)
        if barren:
            why = diagnose({p: now.since(self._since[p]) for p in barren}, self._plan)
            head = f"{_name(barren)} had no row to learn from in {self._plan.barren_steps} steps in a row (run.barren_steps)"
            raise RunFailed(f"{head}\n  {why}\n  {KEPT}")
        self._since |= {report.player: now for report in reports if has_row(report.metrics)}

    def conclude(self, replay: ReplayStats) -> None:
        """At the end of learning. Raises `RunFailed`, with a diagnosis, if a player learned nothing in the whole run."""
        if not replay.answered:
            return
        learned = {p: rows.learned + rows.leased for p, rows in replay.rows.items()}
        self.barren = self._policy.find_barren(learned, self._plan.steps)
        if not self.barren:
            return
        seen = Outcomes.of(replay)
        head = f"nothing was learned: {_name(self.barren)} had no row to learn from in the whole run"
        words = f"{head}\n  {diagnose(dict.fromkeys(self.barren, seen), self._plan)}"
        if self._plan.barren_steps is not None:
            raise RunFailed(f"{words}\n  {OVER}", steps_left=False)
        self.remark = words


def _remedy(players: Sequence[Player]) -> str:
    keys = " or ".join(f"learners.{p}.lr" for p in players)
    return f"a loss that grew asks for a smaller {keys}; one that was never finite, for another model or dtype"


def _name(players: Sequence[Player]) -> str:
    return " and ".join(f"the {p}" for p in players)
