"""Where a learner group begins: the checkpoint that all ranks load, and the version that it goes on from.

A checkpoint that any rank finds damaged is set aside by rank 0, and the one before it is tried. No rank loads anything before all
have found the same one whole.
"""

from pathlib import Path
from typing import Any

import structlog

from learners.spec import LearnerSink, LearnerSpec
from learners.storage import checkpoints
from protocol.errors import UserError
from protocol.interfaces import BatchSource

log = structlog.get_logger(__name__)


def agree_on_start(
    spec: LearnerSpec, source: BatchSource, sink: LearnerSink, rank: int, ranks: int
) -> tuple[Path | None, int]:
    """The checkpoint that all ranks load and the highest version seen, decided on rank 0.

    The source knows the versions that rows were asked for under, in this run and before a `--resume`; the sink also one that a
    group left there and died.
    """
    import torch

    if rank == 0:
        checkpoints.make_root(spec.checkpoints)
    newest = _agree_on_checkpoint(spec, rank, ranks)
    seen: list[Any] = [0]
    if rank == 0:
        checkpoints.remove_old(spec.checkpoints)  # only now: the older one may be the one that is whole
        step = 0 if newest is None else checkpoints.read_meta(newest, spec.config).step
        seen = [max(source.rewind(spec.player, step), sink.newest(spec.player))]
    torch.distributed.broadcast_object_list(seen, src=0)
    return newest, seen[0]


def _agree_on_checkpoint(spec: LearnerSpec, rank: int, ranks: int) -> Path | None:
    """The newest checkpoint that every rank finds whole, or None where there is none. What is damaged is set aside, and said.

    Raises:
        UserError: all that there were are damaged.
    """
    import torch

    lost = 0
    while True:
        decided: list[Any] = [checkpoints.find(spec.checkpoints) if rank == 0 else None]
        torch.distributed.broadcast_object_list(decided, src=0)
        found: checkpoints.Found = decided[0]
        altered: list[Any] = [None] * ranks
        if found.newest is not None:
            torch.distributed.all_gather_object(altered, checkpoints.find_altered(found.newest, rank, ranks))
        damaged = list(found.damaged)
        if found.newest is not None and any(altered):
            damaged.append((found.newest, next(why for why in altered if why)))
        if rank == 0:
            for folder, why in damaged:
                aside = checkpoints.set_aside(folder)
                log.error("checkpoint damaged", player=spec.player, checkpoint=folder.name, why=why, aside=aside.name)
        torch.distributed.barrier()
        lost += len(damaged)
        if not any(altered):
            break
    if found.newest is None and lost:
        raise UserError(
            f"{spec.checkpoints}: every checkpoint is damaged, and nothing is left to go on from; put back what was renamed "
            f"*.damaged, or remove the folder to train the {spec.player} from its start again"
        )
    return found.newest
