"""What one run measures: its players on the held-out seeds, before and after; its judge's probe in between; and what they decide.

How a thing is measured is `cluster.measure`'s. A run that ends early keeps what was measured until then.
"""

from cluster.measure.evaluation import Evaluation, JudgeAbsent
from cluster.measure.heldout import Measurement
from cluster.measure.probe import Prober, ProbeResult, ProbeSet
from cluster.measure.promotion import Decision, decide, mark
from cluster.observe.progress import Progress
from cluster.plan.plan import Plan
from cluster.run.pools import Pools
from cluster.run.states import RunFailed
from cluster.run.wiring import Parts
from cluster.sandbox.rule_judge import RuleJudge
from learners.storage import checkpoints

PROBE_S = 60.0  # for the last judgement of the probe set, after the last step


class Measurements:
    """The measurements of one run, in the order of its methods.

    Attributes:
        decision: of the promotion gate; None before the end, and without a gate.
    """

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan, self._progress = plan, progress
        self._evaluation: Evaluation | None = None
        self._prober: Prober | None = None
        self._pools: Pools | None = None
        self.decision: Decision | None = None

    @property
    def heldout(self) -> dict[str, Measurement]:
        """The held-out measurements so far, by occasion."""
        return {} if self._evaluation is None else self._evaluation.results

    @property
    def latest_probe(self) -> ProbeResult | None:
        """The newest judgement of the probe set; None before the first, and without a set."""
        return None if self._prober is None else self._prober.latest

    def missed(self) -> dict[str, int]:
        """See `Pools.missed`."""
        return {} if self._pools is None else self._pools.missed()

    async def start(self, parts: Parts) -> None:
        """Measures the players before their first step.

        Raises:
            RunFailed: the judge does not answer.
        """
        plan, inputs = self._plan, self._plan.inputs
        pools = self._pools = Pools(plan, "driver", parts.handle)
        judge = RuleJudge() if plan.heldout.judge == "rules" else pools.judge
        self._evaluation = Evaluation(plan.heldout, inputs.heldout, plan.run_dir, pools.attacker, pools.defender, judge)
        try:
            await self._evaluation.start()
        except JudgeAbsent as e:
            raise RunFailed(str(e)) from None
        if inputs.probe:
            probe = ProbeSet(inputs.probe, pools.judge, plan.run_dir, plan.seed)
            self._prober = Prober(probe, plan.judge.config.probe.every)

    def probe(self, step: int) -> ProbeResult | None:
        """Has the probe set judged in the background if that is due at `step`. Gives the newest judgement."""
        if self._prober is not None:
            self._prober.judge_if_due(step)
        return self.latest_probe

    async def end(self) -> None:
        """Measures the trained players, decides on the promotion, and judges the probe set a last time."""
        if self._evaluation is None:
            return
        if self._plan.inputs.heldout:
            self._progress.say("measuring the trained players on the held-out seeds")
        await self._evaluation.end()
        self._decide()
        await self._evaluation.end_trained()
        if self._prober is not None:
            await self._prober.finish(self._plan.steps, PROBE_S)

    def close(self) -> None:
        """Gives up a judgement of the probe set that is under way."""
        if self._prober is not None:
            self._prober.close()

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
