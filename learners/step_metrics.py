"""Which metric of the catalogue each number of a learner step is, and the phases of a learner. Called on rank 0 only."""

from collections.abc import Mapping

from protocol import metrics as m
from protocol.meter import Meter, meter
from protocol.metrics import LEARNER_PHASES, Metric
from protocol.roles import Player

GAUGES: Mapping[str, Metric] = {  # by the names of what a step reports
    "loss": m.LOSS,
    "accuracy": m.ACCURACY,
    "kl": m.KL,
    "grad_norm": m.GRAD_NORM,
    "lr": m.LEARNING_RATE,
    "average_distance": m.EMA_DISTANCE,
    "mfu": m.MFU,
}


def enter_phase(phase: str) -> None:
    """This learner is in `phase` now, one of `LEARNER_PHASES`, and in no other."""
    for known in LEARNER_PHASES:
        meter().set(m.PHASE, known == phase, phase=known)


def count_step(player: Player, done: int, step: Mapping[str, float], staged: bool, to: Meter | None = None) -> None:
    """Sets the metrics of a step.

    Args:
        done: steps done with it.
        step: what it reports (`loop`).
        staged: whether a version was staged after it.
        to: None: this process's meter.
    """
    to = meter() if to is None else to
    outcome = "empty" if not step["items"] else "skipped" if step["skipped"] else "taken"
    to.inc(m.STEPS, player=player, outcome=outcome)
    to.set(m.STEP, done, player=player)
    to.observe(m.STEP_SECONDS, step["seconds"], player=player)
    to.observe(m.LEASE_SECONDS, step["lease_s"], player=player)
    if staged:
        to.observe(m.STAGE_SECONDS, step["stage_s"], player=player)
    to.inc(m.LEARNED_TOKENS, step["tokens"], player=player)
    for name, metric in GAUGES.items():
        to.set(metric, step.get(name), player=player)
