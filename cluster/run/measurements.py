"""What one run measures: its players on the held-out seeds, before, while they learn, and after; its judge's probe in between; and
what they decide.

How a thing is measured is `cluster.measure`'s. A run that ends early keeps what was measured until then.
"""

from collections.abc import Mapping

from cluster.measure.background import BackgroundMeasurer, choose_share, point_of
from cluster.measure.evaluation import Evaluation, JudgeAbsent
from cluster.measure.heldout import Measurement
from cluster.measure.points import HeldoutPoint
from cluster.measure.probe import Prober, ProbeResult, ProbeSet
from cluster.measure.promotion import Decision, decide, mark
from cluster.measure.record import HeldoutRecord, Reason
from cluster.observe.history import History
from cluster.observe.line import say_heldout
from cluster.observe.progress import Progress
from cluster.plan.plan import Plan
from cluster.run.pools import Pools
from cluster.run.states import RunFailed
from cluster.run.wiring import Parts
from cluster.sandbox.rule_judge import RuleJudge
from cluster.waiting import Note
from judge.match.judge import MatchJudge
from judge.match.tables import load_tables
from learners.storage import checkpoints
from protocol.interfaces import Judge
from protocol.roles import Player

PROBE_S = 60.0  # for the last judgement of the probe set, after the last step
SHARE_S = 30.0  # for a measurement that is under way at the last step: no game is in its way any more


def make_apart(kind: str) -> Judge | None:
    """A judge of the held-out measurement that is not the run's, by `heldout.judge`; None: the run's own measures."""
    if kind == "match":
        return MatchJudge(load_tables())
    return RuleJudge() if kind == "rules" else None


class Measurements:
    """The measurements of one run, in the order of its methods.

    Args:
        history: is told the held-out scores.

    Attributes:
        decision: of the promotion gate; None before the end, and without a gate.
    """

    def __init__(self, plan: Plan, progress: Progress, history: History) -> None:
        self._plan, self._progress, self._history = plan, progress, history
        self._record = HeldoutRecord(plan.run_dir)
        self._share: tuple[int, ...] | None = None  # places of the attacks that points are about; None: all of them
        self._background: BackgroundMeasurer | None = None
        self._evaluation: Evaluation | None = None
        self._prober: Prober | None = None
        self._pools: Pools | None = None
        self.decision: Decision | None = None
        self._note: Note = lambda far: None  # of the measurement under way

    @property
    def heldout(self) -> dict[str, Measurement]:
        """The held-out measurements so far, by occasion."""
        return {} if self._evaluation is None else self._evaluation.results

    @property
    def points(self) -> tuple[HeldoutPoint, ...]:
        """The held-out scores so far, of the run's earlier parts too, oldest first.

        The first ("start") and those while the run learns are about the same attacks, the share that is measured in between; so
        is "end". "end_trained_attacker" has attacks of its own, all of them. Without measurements in between every point is
        about all attacks.
        """
        return self._record.points

    @property
    def skipped(self) -> Mapping[Reason, int]:
        """Measurements that were due while the run learned and gave no point, by reason."""
        return self._record.skipped

    @property
    def latest_probe(self) -> ProbeResult | None:
        """The newest judgement of the probe set; None before the first, and without a set."""
        return None if self._prober is None else self._prober.latest

    def missed(self) -> dict[str, int]:
        """See `Pools.missed`."""
        return {} if self._pools is None else self._pools.missed()

    async def start(self, parts: Parts, versions: Mapping[Player, int]) -> None:
        """Measures the players before their first step, and after a warm start.

        Args:
            versions: that the players' workers serve.

        Raises:
            RunFailed: the judge does not answer.
        """
        plan, inputs = self._plan, self._plan.inputs
        pools = self._pools = Pools(plan, "driver", parts.handle)
        judge = make_apart(plan.heldout.judge) or pools.judge
        self._evaluation = evaluation = Evaluation(
            plan.heldout, inputs.heldout, plan.run_dir, pools.attacker, pools.defender, judge, self._count
        )
        with self._progress.wait("the held-out measurement before the first step") as self._note:
            try:
                await evaluation.start()
            except JudgeAbsent as e:
                raise RunFailed(str(e)) from None
        attacks = evaluation.attacks
        if plan.heldout.every:
            self._share = choose_share(attacks, plan.heldout.share, plan.seed)
            share = [attacks[k] for k in self._share]
            self._background = BackgroundMeasurer(
                plan.heldout, plan.steps, share, pools.defender, judge, self._record, self._tell
            )
        self._keep("start", 0, versions, self._share)
        if inputs.probe:
            probe = ProbeSet(inputs.probe, pools.judge, plan.run_dir, plan.seed)
            self._prober = Prober(probe, plan.judge.config.probe.every)

    def probe(self, step: int) -> ProbeResult | None:
        """Has the probe set judged in the background if that is due at `step`. Gives the newest judgement."""
        if self._prober is not None:
            self._prober.judge_if_due(step)
        return self.latest_probe

    def measure_if_due(self, step: int, versions: Mapping[Player, int]) -> None:
        """Has a share of the held-out attacks measured in the background if that is due at `step`.

        Args:
            step: of the player furthest behind. Games are played: the workers serve what the learners pushed.
            versions: that the players' workers serve.
        """
        if self._background is not None:
            self._background.measure_if_due(step, versions)

    async def end(self, versions: Mapping[Player, int]) -> None:
        """Measures the trained players, decides on the promotion, and judges the probe set a last time.

        Args:
            versions: that the players' workers serve: the last ones.
        """
        if self._evaluation is None:
            return
        if self._background is not None:
            await self._background.finish(SHARE_S)
        if self._plan.inputs.heldout:
            self._progress.say("measuring the trained players on the held-out seeds")
        with self._progress.wait("the held-out measurement with the base attacker's attacks") as self._note:
            await self._evaluation.end()
        self._keep("end", self._plan.steps, versions, self._share)
        self._decide()
        with self._progress.wait("the held-out measurement with the trained attacker's attacks") as self._note:
            await self._evaluation.end_trained()
        self._keep("end_trained_attacker", self._plan.steps, versions, None)
        if self._prober is not None:
            await self._prober.finish(self._plan.steps, PROBE_S)

    def close(self) -> None:
        """Gives up what is under way in the background: a judgement of the probe set, a measurement."""
        if self._background is not None:
            self._background.close()
        if self._prober is not None:
            self._prober.close()

    def _keep(self, occasion: str, step: int, versions: Mapping[Player, int], places: tuple[int, ...] | None) -> None:
        """Notes the point of a measurement at the start or the end, if this part of the run took it."""
        replies = None if self._evaluation is None else self._evaluation.replies.get(occasion)
        if replies is not None:
            point = point_of(occasion, step, versions, replies, places)
            self._record.add(point)
            self._history.note_heldout(point)

    def _tell(self, point: HeldoutPoint) -> None:
        """A point that came in the background."""
        self._progress.say(say_heldout(point))
        self._history.note_heldout(point)

    def _count(self, what: str, done: int, wanted: int) -> None:
        self._note(f"{done} of {wanted} {what}")

    def _decide(self) -> None:
        """Marks the Defender's last checkpoint and its export as promoted, or says there why not."""
        gate = self._plan.promotion
        if gate is None:
            return
        samples = self._plan.heldout.samples
        decision = self.decision = decide(self.heldout.get("start"), self.heldout.get("end"), gate, samples)
        last = checkpoints.newest(self._plan.run_dir.checkpoints("defender"))
        for folder in (last, self._plan.run_dir.export("defender")):
            if folder is not None and folder.is_dir():
                mark(folder, decision)
        verdict = "promoted" if decision.promoted else f"not promoted: {'; '.join(decision.reasons)}"
        self._progress.say(f"the Defender's last checkpoint is {verdict}")
