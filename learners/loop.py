"""What one rank of a learner group does from start to export: lease, step, push, checkpoint.

A start, a restart after a rank died and `train --resume` take the same path: the newest complete checkpoint is loaded if there is
one, leases from its step on are returned, and the loop goes on there.

Invariants
- All ranks lease the same (player, step) and so compute on the same batch; all collectives are in `engine` and are entered by all.
- Versions only rise: a start goes on from the highest version that anyone has seen. Version 0 is the model folder itself. A group
  that starts above it, or after a warm start (`warm`), first pushes the weights it has, because generation workers hold others.
- Rows are acknowledged only after the checkpoint that contains them is complete.
- With `settle_every` such a step is not reported as done, by the next lease or an acknowledgement, before its version is served:
  the games that are dealt because of it are played with that version. Synchronous runs and the ends of turns need this.
- Told to stop, all ranks end before the same step, with a checkpoint of the steps before it.
- `step` in manifests, reports, checkpoints and acknowledgements counts the optimizer steps done: n means steps 0..n-1.

It does not know Ray: source and sink are adapters that `cluster` hands in, and a rank's place comes from torch.distributed.
"""

import os
import time
from dataclasses import replace
from typing import Any

import structlog

from learners.batch.demonstrations import SftMix, load_demonstrations
from learners.flops import peak_here
from learners.spec import LearnerResult, LearnerSink, LearnerSpec
from learners.start import agree_on_start
from learners.step_metrics import count_step, enter_phase
from learners.storage import checkpoints
from learners.warm import warm_up
from learners.weights.buffers import StagingPool, array_of
from learners.weights.handover import Handover
from protocol import metrics as m
from protocol.interfaces import BatchSource
from protocol.meter import meter
from protocol.packed import RunningChecksum
from protocol.shared import SharedBuffer

log = structlog.get_logger(__name__)

_LEASE_S = 10.0  # one wait for rows; short, so that a source that fails is noticed
_STILL_WAITING_S = 60.0


def learn(spec: LearnerSpec, source: BatchSource, sink: LearnerSink) -> LearnerResult:
    """Runs one rank to `spec.steps`. `torch.distributed` is initialised.

    Raises:
        Whatever the source or the sink raises: that is how a run is stopped from outside.
    """
    import torch

    os.environ["OMP_NUM_THREADS"] = str(spec.config.threads)
    torch.set_num_threads(spec.config.threads)

    from learners.zero3.engine import ZeroEngine

    started = time.perf_counter()
    enter_phase("starting")
    demonstrations = load_demonstrations(spec)
    engine = ZeroEngine(spec.model_path, spec.config, spec.steps, spec.run_seed, spec.quirks)
    rank0 = engine.rank == 0
    found, seen = agree_on_start(spec, source, sink, engine.rank, engine.world)
    if found is not None:
        engine.load(found)
    start = engine.steps_done
    run = _RankLoop(spec, source, sink, engine, demonstrations.mix, max(engine.version, seen))
    if rank0:
        log.info("learner ready", player=spec.player, step=start, seconds=round(time.perf_counter() - started, 1))
    warmed = warm_up(spec, engine, demonstrations.warm, sink)
    if run.version > 0 or start > 0 or warmed:
        run.push(start)
        if spec.settle_every:
            run.wait_for_delivery()
    for step in range(start, spec.steps):
        if not run.step(step):
            return run.stop(step, start)
    return run.finish(start)


class _RankLoop:
    """One rank's steps: the current version, and what is done with it."""

    def __init__(
        self,
        spec: LearnerSpec,
        source: BatchSource,
        sink: LearnerSink,
        engine: Any,
        mix: SftMix | None,
        version: int,
    ) -> None:
        self.spec, self.source, self.sink, self.engine, self.version = spec, source, sink, engine, version
        self.mix = mix
        self.saved = engine.steps_done  # by the newest checkpoint; 0: there is none, or nothing was learned before it
        self.rank0 = engine.rank == 0
        self.pool = StagingPool(lock_pages=spec.config.gpus_per_rank > 0)
        self.handover = Handover(sink, self.pool) if self.rank0 else None
        if self.rank0:
            self.pool.fill(engine.packed_bytes(spec.push_dtype))  # now: locking gigabytes takes longer than a push may
        peak = peak_here() if spec.config.gpus_per_rank else None
        self.peak_flops = None if peak is None else peak * engine.world

    def step(self, step: int) -> bool:
        """Takes one step. False: the run is to end, and it was not taken."""
        from learners.batch.build import make_batch

        spec, done = self.spec, step + 1
        self.enter("leasing")
        waited = time.perf_counter()
        table = self.lease(step)
        waited = time.perf_counter() - waited
        if table is None:
            return False
        self.enter("learning")
        rank, ranks = self.engine.rank, self.engine.world
        batch = make_batch(table, spec.config, spec.quirks, rank, ranks)
        demonstrations = None if self.mix is None else self.mix.batch(step, rank, ranks)
        metrics = self.engine.step(batch, step, demonstrations)
        staged = time.perf_counter()
        pushes = done % spec.push_every == 0 or done == spec.steps
        if pushes:
            self.enter("pushing")
            self.push(done)
        if self.rank0:
            metrics |= {"lease_s": waited, "stage_s": time.perf_counter() - staged}
            if self.peak_flops is not None:
                metrics["mfu"] = metrics["tokens"] * self.engine.flops_per_token / metrics["seconds"] / self.peak_flops
            self.sink.report(spec.player, done, self.version, metrics)
            count_step(spec.player, done, metrics, pushes)
        if spec.settle_every and (done % spec.settle_every == 0 or done == spec.steps):
            self.wait_for_delivery()
        if done % spec.config.checkpoint_every == 0 or done == spec.steps:
            self.checkpoint(done)
        return True

    def enter(self, phase: str) -> None:
        """Says which phase rank 0 is in."""
        if self.rank0:
            enter_phase(phase)

    def lease(self, step: int) -> Any:
        """Waits for the step's games; their table may be empty. If there will be none, the source says so by raising.

        Returns:
            The table, the same on all ranks; None if the run is to end, which all ranks hear before the same step.
        """
        spec = self.spec
        began = noted = time.monotonic()
        while True:
            table = self.source.lease(spec.player, step, self.version, spec.config.batch_games, _LEASE_S)
            stop, waiting = self.agree(self.rank0 and self.source.stopping(), table is None)
            if stop:
                return None
            if not waiting:
                return table
            now = time.monotonic()
            if self.rank0 and now - noted >= _STILL_WAITING_S:
                noted = now
                log.warning("learner waits on replay", player=spec.player, step=step, seconds=round(now - began))

    def agree(self, *said: bool) -> list[bool]:
        """Of each of these, whether any rank says so. Collective: no rank may end, or go on, where another does not."""
        import torch

        if self.engine.world == 1:
            return list(said)
        device = "cuda" if self.spec.config.gpus_per_rank else "cpu"
        votes = torch.tensor(said, dtype=torch.int32, device=device)
        torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def push(self, done: int) -> None:
        """Stages the sampler's weights as the next version and leaves it to the handover thread."""
        from learners.zero3.staging import Destination

        spec = self.spec
        self.version += 1
        taken: list[SharedBuffer] = []

        def allocate(nbytes: int) -> Any:
            taken.append(self.pool.take(nbytes))
            return array_of(taken[0])

        checksum = RunningChecksum()
        destination = Destination(allocate, spec.stage_mib << 20, spec.stage_s, checksum)
        manifest, _ = self.engine.stage(spec.push_dtype, spec.player, self.version, done, destination)
        if self.handover is not None:
            self.handover.offer(replace(manifest, last=done == spec.steps), taken[0], checksum)

    def wait_for_delivery(self) -> None:
        """Waits until every generation worker serves the newest version.

        Each rank waits for itself: any of them may be the first to ask for the next rows, and a collective behind rank 0's wait
        would time out before that wait can say why.

        Raises:
            TimeoutError: a worker does not serve it within `collective_deadline_s`.
        """
        spec, limit_s = self.spec, self.spec.config.collective_deadline_s
        if self.version > 0 and not self.sink.wait_delivered(spec.player, self.version, limit_s):
            raise TimeoutError(
                f"{spec.player}: version {self.version} did not reach every generation worker within {limit_s:g} s "
                f"({spec.section}.collective_deadline_s); logs/publisher-0.log says which worker is late"
            )

    def checkpoint(self, done: int) -> None:
        import torch

        self.enter("saving")
        root = self.spec.checkpoints
        self.engine.save(checkpoints.draft(root, done))
        if self.rank0:
            checkpoints.commit(root, done)
            meter().set(m.CHECKPOINT_STEP, done, player=self.spec.player)
            self.source.acknowledge(self.spec.player, done)
        self.saved = done
        torch.distributed.barrier()

    def stop(self, done: int, start_step: int) -> LearnerResult:
        """Saves the steps since the newest checkpoint, if there are any; neither exports nor waits for a version's delivery."""
        if done > self.saved:
            self.checkpoint(done)
        self.enter("ended")
        if self.rank0:
            log.info("learner stopped", player=self.spec.player, step=done)
        return LearnerResult(self.spec.player, done, self.version, self.spec.export, start_step, stopped=True)

    def finish(self, start_step: int) -> LearnerResult:
        spec = self.spec
        self.enter("saving")
        self.engine.export(spec.export, spec.push_dtype)
        if spec.config.lora is not None:
            self.engine.export_adapter(spec.adapter)
        result = LearnerResult(spec.player, spec.steps, self.version, spec.export, start_step)
        if self.handover is None:
            return result
        deadline_s = spec.config.collective_deadline_s
        self.source.acknowledge(spec.player, spec.steps)
        self.source.finished(spec.player)
        self.handover.drain(deadline_s)
        self.enter("ended")
        delivered = self.version == 0 or self.sink.wait_delivered(spec.player, self.version, deadline_s)
        self.handover.close()  # not before: a publisher that restarts needs the last version again
        if not self.sink.flush(deadline_s):
            log.error("the last reports are lost", player=spec.player)
        return replace(result, pushes=self.handover.published, superseded=self.handover.superseded, delivered=delivered)
