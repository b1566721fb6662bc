"""The held-out measurements of one run: before training, and after it against the base and the trained attacker.

The base attacker's attacks and the first measurement are kept in the run directory, so that a resumed run compares with the
same start.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from cluster.measure.heldout import (
    Attack,
    AttackSet,
    Measurement,
    Replies,
    Tell,
    count,
    respond,
    tell_nobody,
    wrap,
)
from cluster.plan.heldout import HeldoutPlan
from cluster.rundir import RunDir, resume_from
from protocol.errors import UserError
from protocol.files import write_json
from protocol.interfaces import Generator, Judge
from protocol.types import Seed


class JudgeAbsent(Exception):
    """The judge did not answer when the start was to be measured. The message is one line."""


def read_start(file: Path, seeds: Mapping[str, Seed]) -> tuple[AttackSet, Measurement]:
    """The base attacker's attacks and the first measurement, of an earlier part of the run.

    Args:
        seeds: the held-out ones by id, in their order.

    Raises:
        UserError: the file is damaged, or the held-out seeds are others now.
    """
    remedy = "put a whole copy back, or start a new run: without it there is no start to compare the end with"
    with resume_from(file, remedy):
        kept = json.loads(file.read_text(encoding="utf-8"))
        same = kept["seeds"] == list(seeds)
        attacks = [Attack(seeds[a["seed"]], str(a["text"])) for a in kept["attacks"]] if same else []
        missing = [(category, why) for category, why in kept["missing"]]
        start = TypeAdapter(Measurement).validate_python(kept["start"])
    if not same:
        raise UserError(f"seeds.heldout: changed since {file} was written; put the same file back to resume")
    return AttackSet(attacks, missing), start


class Evaluation:
    """Takes the measurements; `results` holds those taken so far, by occasion, `replies` what they were counted from.

    A start that an earlier part of the run measured is in `results` only.
    """

    def __init__(
        self,
        plan: HeldoutPlan,
        seeds: Sequence[Seed],
        run_dir: RunDir,
        attacker: Generator,
        defender: Generator,
        judge: Judge,
        tell: Tell = tell_nobody,
    ) -> None:
        self._plan, self._seeds, self._file = plan, {s.id: s for s in seeds}, run_dir.heldout
        self._attacker, self._defender, self._judge = attacker, defender, judge
        self._wrapped, self._tell = AttackSet([], []), tell
        self.results: dict[str, Measurement] = {}
        self.replies: dict[str, Replies] = {}

    @property
    def attacks(self) -> Sequence[Attack]:
        """The base attacker's; none before `start`."""
        return self._wrapped.attacks

    async def _measure(self, wrapped: AttackSet, label: str, occasion: str) -> Measurement:
        at_once = self._plan.rules.game.in_flight
        replies = await respond(wrapped.attacks, self._plan, self._defender, self._judge, label, at_once, self._tell)
        self.replies[occasion] = replies
        return count(replies.of, wrapped.missing)

    async def start(self) -> None:
        """Measures before training, at version 0 of both players; read back if an earlier part of this run did it.

        Raises:
            UserError: as `read_start`.
            JudgeAbsent: the judge failed on too many to compare with later. Nothing is kept.
        """
        if not self._seeds:
            return
        if self._file.is_file():
            self._wrapped, self.results["start"] = read_start(self._file, self._seeds)
            return
        self._wrapped = await self._wrap("base")
        start = await self._measure(self._wrapped, "start", "start")
        wanted = len(self._seeds) * self._plan.samples
        limit = self._plan.unjudged_limit
        if limit is not None and start.unjudged > limit * wanted:
            raise JudgeAbsent(
                f"the judge failed on {start.unjudged} of {wanted} held-out attacks before the first game, more than "
                f"judge.alarm.failure_rate {limit:g} allows; see that it answers, and resume"
            )
        self.results["start"] = start
        texts = [{"seed": a.seed.id, "text": a.text} for a in self._wrapped.attacks]
        missing = self._wrapped.missing
        write_json(
            self._file, {"start": start.as_dict(), "seeds": list(self._seeds), "attacks": texts, "missing": missing}
        )

    async def end(self) -> None:
        """Measures after training, when the last versions are on the workers: the base attacker's attacks again."""
        if self._seeds:
            self.results["end"] = await self._measure(self._wrapped, "end", "end")

    async def end_trained(self) -> None:
        """Measures the trained attacker's attacks on the same seeds."""
        if self._seeds:
            occasion = "end_trained_attacker"
            self.results[occasion] = await self._measure(await self._wrap("trained"), "end-trained", occasion)

    async def _wrap(self, label: str) -> AttackSet:
        return await wrap(list(self._seeds.values()), self._plan, self._attacker, self._judge, label, self._tell)
