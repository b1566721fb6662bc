"""Which workers of a run are supervised, by whom they are started, and how many of them are fit.

The looking and the deciding are `cluster.supervise`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cluster.plan.placement import generation_role
from cluster.plan.plan import Plan
from cluster.run.wiring import Parts
from cluster.supervise.supervisor import GenerationKeeper, JudgeKeeper, Supervised, Supervisor
from protocol.roles import PLAYERS, Player


@dataclass(frozen=True, slots=True)
class Fitness:
    """How many workers are fit, that is ready or busy.

    Attributes:
        judges: (fit, all).
        generators: the same, for each player.
        replaced: workers replaced by supervision, by reason.
    """

    judges: tuple[int, int] = (0, 0)
    generators: Mapping[Player, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys(PLAYERS, (0, 0)))
    replaced: Mapping[str, int] = field(default_factory=dict)


class RunSupervisor(Supervisor):
    """The supervisor of a run's generation and judge workers.

    Args:
        missed: see `Supervisor`.
    """

    def __init__(self, plan: Plan, parts: Parts, missed: Callable[[], Mapping[str, int]]) -> None:
        self._judges = parts.judges_by_role
        self._generators = {p: parts.generators_by_role(p) for p in PLAYERS}
        names = {generation_role(p, k): f"{p}-{k}" for p in PLAYERS for k in range(len(parts.generators[p]))}
        limit_s = plan.judge.config.engine.start_deadline_s
        judging, generating = JudgeKeeper(self._judges, limit_s), GenerationKeeper(parts.publisher, names)
        workers = {role: Supervised(handle, judging, limit_s) for role, handle in self._judges.items()}
        # Their starts have the publisher's deadline; twice as long for one that the publisher takes for healthy.
        limit_s = 2 * plan.generation.start_deadline_s
        for mine in self._generators.values():
            workers |= {role: Supervised(handle, generating, limit_s) for role, handle in mine.items()}
        super().__init__(workers, plan.health, missed)

    def fitness(self) -> Fitness:
        """How many are fit now. Raises what ended supervision, if something did."""
        self.check()
        return Fitness(
            self._count(self._judges),
            {p: self._count(mine) for p, mine in self._generators.items()},
            dict(self.replaced),
        )

    def _count(self, roles: Mapping[str, object]) -> tuple[int, int]:
        return sum(self.state(role) in ("ready", "busy") for role in roles), len(roles)
