"""Held-out scores while the run learns: every `heldout.every` steps a share of the attacks is measured, and the games go on.

What is due, which attacks are measured and what a point says is decided by pure functions; `BackgroundMeasurer` is the shell that
measures in a task of its own. Invariants:
- the same attacks are measured each time, so that the points of a run can be compared;
- one measurement at a time, at most `HeldoutPlan.at_once` asks of it open, none of it older than `heldout.deadline_s`;
- a measurement that was due either gives a point or is counted, with its reason; none ends the run.

The measurements at the start and at the end are `evaluation`'s; what is kept of all of them is `record`'s.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from cluster.measure.heldout import Attack, Replies, count, respond
from cluster.measure.points import HeldoutPoint
from cluster.measure.record import HeldoutRecord, Reason
from cluster.plan.heldout import HeldoutPlan
from cluster.publish.stats import PublisherStats
from protocol.errors import trail
from protocol.interfaces import Generator, Judge
from protocol.randomness import derive_seed
from protocol.roles import CATEGORIES, Player

AT_LEAST = 32  # attacks of a category: the 95 % interval of a share of 32 is 17 points to either side at most
CANCEL_S = 5.0  # for a measurement that is given up to let go of the workers

_log = structlog.get_logger(__name__)


def choose_share(attacks: Sequence[Attack], share: float, seed: int) -> tuple[int, ...]:
    """The places in `attacks` of those that are measured while the run learns, in order. Always the same ones.

    Of each category the same share, but at least `AT_LEAST`, or all that there are. A seed's second attack is taken only when
    every seed has one: attacks on different seeds say more.

    Args:
        share: above 0, up to 1.
        seed: the run's.
    """
    chosen: list[int] = []
    for category in CATEGORIES:
        mine = [k for k, attack in enumerate(attacks) if attack.seed.category == category]
        random.Random(derive_seed(seed, "heldout-share", category)).shuffle(mine)
        turn: dict[int, int] = {}
        of_seed: Counter[str] = Counter()
        for k in mine:
            turn[k] = of_seed[attacks[k].seed.id]
            of_seed[attacks[k].seed.id] += 1
        mine.sort(key=turn.__getitem__)
        chosen += mine[: max(AT_LEAST, round(share * len(mine)))]
    return tuple(sorted(chosen))


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done at a step: begin a measurement or not, and how many of those that were due are skipped for what."""

    begin: bool = False
    skipped: int = 0
    reason: Reason = "passed"


def decide(step: int, reached: int, every: int, steps: int, busy: bool) -> Decision:
    """Whether a measurement begins.

    One is due whenever a multiple of `every` is passed. None begins in the last half of an interval before the last step: the
    measurement at the end follows at once, and this one would only keep it waiting.

    Args:
        step: of the player furthest behind; `steps`: that each takes in all.
        reached: step of the newest one that was due.
        every: `HeldoutPlan.every`.
        busy: whether one is under way.
    """
    due = step // every - reached // every if every else 0
    if due <= 0:
        return Decision()
    if 2 * (steps - step) < every:
        return Decision(False, due, "near_end")
    if busy:
        return Decision(False, due, "busy")
    return Decision(True, due - 1, "passed")


def name_versions(publisher: PublisherStats) -> dict[Player, int]:
    """Each player's version that a measurement is named by: the newest that a worker of it serves.

    Where no worker is known to serve, the newest that was published.
    """
    return {
        p: max((w.version for w in mine.workers if w.version >= 0), default=mine.newest)
        for p, mine in publisher.players.items()
    }


def point_of(
    occasion: str, step: int, versions: Mapping[Player, int], replies: Replies, places: Sequence[int] | None = None
) -> HeldoutPoint:
    """The point that replies amount to.

    Args:
        places: of the replies that count; None: all. Attacks that were never written are in no place, and not missing from it.
    """
    mine = replies.of if places is None else [replies.of[k] for k in places]
    counted = count(mine)
    served = {version for reply in mine if reply.versions is not None for version in reply.versions}
    return HeldoutPoint(
        occasion=occasion,
        step=step,
        versions=dict(versions),
        mixed=bool(served - {versions["defender"]}),
        attack_success=counted.attack_success,
        over_refusal=counted.over_refusal,
        benign_compliance=counted.benign_compliance,
        n_harmful=counted.n_harmful,
        n_benign=counted.n_benign,
        missing=len(mine) - counted.n,
        time_s=replies.time_s,
        seconds=replies.seconds,
    )


def says_too_little(point: HeldoutPoint, limit: float | None) -> bool:
    """Whether so much is missing that the rest would mislead: everything, or a larger share than `limit`."""
    judged = point.n_harmful + point.n_benign
    return judged == 0 or (limit is not None and point.missing > limit * (judged + point.missing))


class BackgroundMeasurer:
    """Measures a share of the attacks in a task beside the run; see the module's docstring.

    Args:
        steps: that each player takes.
        attacks: that are measured each time.
        record: where points and what was skipped are noted.
        tell: is given each point, once it is in the record.
    """

    def __init__(
        self,
        plan: HeldoutPlan,
        steps: int,
        attacks: Sequence[Attack],
        defender: Generator,
        judge: Judge,
        record: HeldoutRecord,
        tell: Callable[[HeldoutPoint], None],
    ) -> None:
        self._plan, self._steps, self._attacks = plan, steps, attacks
        self._defender, self._judge = defender, judge
        self._record, self._tell = record, tell
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a measurement is under way."""
        return self._task is not None and not self._task.done()

    def measure_if_due(self, step: int, versions: Mapping[Player, int]) -> None:
        """Begins a measurement if one is due at `step`. Raises nothing.

        Args:
            step: of the player furthest behind.
            versions: see `name_versions`.
        """
        if not self._attacks:
            return
        decision = decide(step, self._record.reached, self._plan.every, self._steps, self.busy)
        if decision.begin or decision.skipped:
            self._record.reach(step)
        if decision.skipped:
            _log.warning("held-out measurements skipped", step=step, n=decision.skipped, reason=decision.reason)
            self._record.skip(decision.reason, decision.skipped)
        if decision.begin:
            self._task = asyncio.create_task(self._measure(step, dict(versions)))

    async def finish(self, limit_s: float) -> None:
        """Waits `limit_s` for a measurement that is under way, then gives it up."""
        if (task := self._task) is None:
            return
        await asyncio.wait({task}, timeout=limit_s)
        self.close()
        await asyncio.wait({task}, timeout=CANCEL_S)

    def close(self) -> None:
        """Gives up a measurement that is under way; nothing of it is kept, and it is counted."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._record.skip("ended")
        self._task = None

    async def _measure(self, step: int, versions: Mapping[Player, int]) -> None:
        """One measurement, to its point or the reason why there is none."""
        plan, occasion = self._plan, f"step-{step}"
        try:
            async with asyncio.timeout(plan.deadline_s):
                replies = await respond(self._attacks, plan, self._defender, self._judge, occasion, plan.at_once)
            point = point_of(occasion, step, versions, replies)
            if says_too_little(point, plan.unjudged_limit):
                self._give_up("unjudged", step, missing=point.missing)
                return
            self._record.add(point)
            self._tell(point)
        except TimeoutError:
            self._give_up("late", step, limit_s=plan.deadline_s)
        except Exception as e:  # noqa: BLE001  # whatever breaks in it, the games go on; where goes to the log, not what: it may quote a prompt
            self._give_up("failed", step, trail=trail(e))

    def _give_up(self, reason: Reason, step: int, **why: object) -> None:
        _log.error("no held-out measurement", step=step, reason=reason, **why)
        self._record.skip(reason)
