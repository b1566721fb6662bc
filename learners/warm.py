"""The warm start of one rank: supervised steps on demonstrations, before the first lease.

Invariants
- They are no steps of the run: no game is leased for them, and schedule and average begin after them, from what they end at.
- They are resumable: a checkpoint `warm-N` contains N of them, and a learner that has taken a step of the run takes none.
- All ranks take the same ones, because every step is collective.

It does not push: the loop does that as after a resume, and the games wait for that version.
"""

from typing import Any

import structlog

from learners.batch.demonstrations import SftMix
from learners.spec import LearnerSink, LearnerSpec
from learners.step_metrics import enter_phase
from learners.storage import checkpoints

log = structlog.get_logger(__name__)


def warm_up(spec: LearnerSpec, engine: Any, examples: SftMix | None, sink: LearnerSink) -> bool:
    """Takes the steps that are left. True if the policy is another than its model folder's because of a warm start.

    Args:
        engine: the rank's, at its newest checkpoint.
        examples: None: there is no warm start.
        sink: is told of each step, by rank 0.
    """
    wanted = spec.config.sft.warm_steps
    if examples is None or engine.steps_done > 0:
        return examples is not None
    rank0 = engine.rank == 0
    if rank0:
        enter_phase("learning")
        log.info("warm start", player=spec.player, done=engine.warm_done, of=wanted)
    for step in range(engine.warm_done, wanted):
        metrics = engine.warm_step(examples.batch(step, engine.rank, engine.world))
        if rank0:
            sink.report_warm(spec.player, step + 1, wanted, metrics)
        if step + 1 == wanted:
            engine.begin_game()
        if (step + 1) % spec.config.checkpoint_every == 0 or step + 1 == wanted:
            _save(spec, engine, step + 1)
    return True


def _save(spec: LearnerSpec, engine: Any, done: int) -> None:
    import torch

    engine.save(checkpoints.draft(spec.checkpoints, 0, done))
    if engine.rank == 0:
        checkpoints.commit(spec.checkpoints, 0, done)
    torch.distributed.barrier()
