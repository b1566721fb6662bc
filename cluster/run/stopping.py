"""The end of a run before its last step: its learners save checkpoints, so that a resumed run loses no step that they took.

Whatever ends the run (a signal, a part that failed, a standstill), the learners that live hear of it where they next ask for rows.
It takes nothing down, and waits no longer than `run.grace_s`; a person's second Ctrl-C ends the wait.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
import structlog

from cluster.observe.progress import Progress
from cluster.run.answers import wait_for
from cluster.run.session import hurry
from cluster.run.wiring import Parts
from learners.spec import LearnerResult
from protocol.errors import trail
from protocol.roles import Player

LOOK_S = 0.5
TELL_S = 10.0  # for the replay buffer to take the news: one that is gone cannot pass it on

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """What came of it.

    Attributes:
        steps: of the learners that ended with a checkpoint, how many it holds.
        lost: learners that did not.
        seconds: that it took.
    """

    steps: Mapping[Player, int]
    lost: tuple[Player, ...]
    seconds: float

    def __str__(self) -> str:
        told = [f"checkpoint of the {player} at step {step}" for player, step in self.steps.items()]
        told += [f"none of the {player}: its steps since its last one are lost" for player in self.lost]
        return f"{'; '.join(told)} ({self.seconds:.0f} s)"


async def save_learners(parts: Parts, steps: Mapping[Player, int], grace_s: float, progress: Progress) -> Saved | None:
    """Has the learner groups that live save checkpoints and end. None if there is nothing to save.

    Args:
        steps: how many each player's learner reported in this part of the run; one without any has nothing to save.
        grace_s: how long it may take.
    """
    waiting = {p: ref for p, ref in parts.learners.items() if steps.get(p, 0) > 0 and not _is_done(ref)}
    if not waiting or grace_s <= 0:
        return None
    began = time.monotonic()
    saved: dict[Player, int] = {}
    lost: list[Player] = []
    with progress.wait("the learners' checkpoints", f"given up after {grace_s:.0f} s, or at Ctrl-C") as note:
        told = False
        while waiting and time.monotonic() - began < grace_s and not hurry.is_set():
            note(" and ".join(f"the {player}'s" for player in waiting))
            # Again each time: a replay buffer that restarts forgets it.
            told = await _tell(parts) or told
            if not told:
                break
            await asyncio.sleep(LOOK_S)
            for player, ref in list(waiting.items()):
                if _is_done(ref):
                    del waiting[player]
                    step = _step_of(player, ref)
                    if step is None:
                        lost.append(player)
                    else:
                        saved[player] = step
    result = Saved(saved, (*lost, *waiting), time.monotonic() - began)
    progress.say(str(result))
    return result


def _is_done(ref: Any) -> bool:
    return bool(ray.wait([ref], timeout=0)[0])


def _step_of(player: Player, ref: Any) -> int | None:
    """The steps in the checkpoint that a learner group ended with; None if it ended by an error."""
    try:
        result: LearnerResult = ray.get(ref)
    except ray.exceptions.RayError as e:
        log.error("a learner group saved nothing", player=player, exc_info=e)
        return None
    return result.steps


async def _tell(parts: Parts) -> bool:
    """Whether the replay buffer knows that the learners are to end."""
    try:
        async with asyncio.timeout(TELL_S):
            await wait_for(parts.replay.stop_learners.remote())
    except (ray.exceptions.RayError, TimeoutError) as e:
        log.warning("the replay buffer could not be told that the run ends", trail=trail(e))
        return False
    return True
