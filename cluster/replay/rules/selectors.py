"""Which of the waiting games a step gets, and which are evicted when there are too many: `replay.sampler`, `.remover`, `.balanced`.

Pure functions of the waiting games, in the order in which they were dealt, and a seed: a restart or another rank decides alike. The
journal holds what was decided.

| order | a step gets (`sampler`) | evicted first at the capacity (`remover`) |
|---|---|---|
| `fifo` | the games dealt first | the games dealt first |
| `uniform` | games at random | games at random |
| `freshest` | games of the newest versions | games of the newest versions |

Invariants, whatever the order:

- **no order delays a step**: where n games wait, n are given. So `admission`'s proof of liveness holds for each order.
- **balance costs no game**: it puts off only games that can wait (`_needs`). A game that a step would get without balance, and that
  would be stale at the next version, stays in the step.

Every order but `fifo` lets some games go stale that `fifo` would have learned: they are evicted at a lease, counted, and their room
is free again. A game without rows has no version. `freshest` takes it for the newest: as the oldest it would wait for ever and keep
its room. Stale games are evicted before the order is asked (`table`).
"""

import random
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cluster.plan.replay import ReplayPlan
from protocol.randomness import derive_seed
from protocol.recipe import Order
from protocol.roles import Category, Player


class Waiting(Protocol):
    """What an order goes by: the oldest version of a game's rows (None: it gave none), and its seed's category."""

    @property
    def version(self) -> int | None: ...

    @property
    def category(self) -> Category: ...


U = TypeVar("U", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Selection:
    """A table's sampler and remover. `seed` is the table's own."""

    sampler: Order = "fifo"
    remover: Order = "fifo"
    balanced: bool = False
    seed: int = 0

    @classmethod
    def from_plan(cls, plan: ReplayPlan, player: Player) -> "Selection":
        table, seed = plan.table, derive_seed(plan.seed, "replay", player)
        return cls(table.sampler, table.remover, table.balanced, seed)

    def sample(self, units: Sequence[U], games: int, step: int, slack: Sequence[int | None]) -> list[U]:
        """The games of a step, in the order in which they were dealt.

        Args:
            units: the waiting games in that order, `games` of them at least.
            slack: for each, how many more versions it can wait for; None: it does not age.
        """
        ranked = _rank(self.sampler, units, derive_seed(self.seed, "sampler", step))
        chosen = (
            _balance([units[k] for k in ranked], games, [slack[k] for k in ranked]) if self.balanced else range(games)
        )
        return [units[k] for k in sorted(ranked[place] for place in chosen)]

    def rank_for_removal(self, units: Sequence[U], appended: int) -> list[U]:
        """The waiting games, those to evict first in front. `appended` is how many games the table ever took."""
        return [units[k] for k in _rank(self.remover, units, derive_seed(self.seed, "remover", appended))]


def _rank(order: Order, units: Sequence[Waiting], seed: int) -> list[int]:
    """Places in `units`, first choice first."""
    places = list(range(len(units)))
    if order == "uniform":
        random.Random(seed).shuffle(places)
    elif order == "freshest":  # of one version the oldest game first: sorting keeps the order of equals
        versions = [unit.version for unit in units]
        newest = max((v for v in versions if v is not None), default=0)
        places.sort(key=lambda k: newest - v if (v := versions[k]) is not None else -1)
    return places


def _balance(ranked: Sequence[Waiting], games: int, slack: Sequence[int | None]) -> set[int]:
    """`games` places in the ranking: each time the category that has fewer so far, as long as it has any and the others can wait.

    Of the first `games` ranks, those that would be stale at the next version are taken whatever their category.
    """
    chosen = {place for place in range(games) if slack[place] == 0}
    shares = Counter(ranked[place].category for place in chosen)
    queues: dict[Category, deque[int]] = {}
    for place, unit in enumerate(ranked):
        if place not in chosen:
            queues.setdefault(unit.category, deque()).append(place)
    needs = {k: need - len(chosen) for k, need in _needs(games, slack).items()}
    limit: int | None = None
    while len(chosen) < games:
        tight = next((k for k, need in needs.items() if need >= games - len(chosen)), None) if needs else None
        if tight is not None and tight != limit:  # from here on only games that can wait for at most `tight` versions
            limit = tight
            queues = {c: deque(p for p in queue if _count(tight, (slack[p],))) for c, queue in queues.items()}
        category = min((c for c, queue in queues.items() if queue), key=lambda c: (shares[c], queues[c][0]))
        place = queues[category].popleft()
        chosen.add(place)
        shares[category] += 1
        if needs:
            needs = {k: need - _count(k, (slack[place],)) for k, need in needs.items()}
    return chosen


def _needs(games: int, slack: Sequence[int | None]) -> dict[int, int]:
    """By k, ascending: how many of the games that can wait for at most k more versions must be in this step.

    The k steps after this one take k * games, so what exceeds that goes now, as far as the order itself would take it. So under
    `fifo` and the bound of `admission` balance makes no game stale, now or later.
    """
    waits, first = sorted(s for s in slack if s is not None), slack[:games]
    levels = range(1, -(-len(waits) // games))  # the steps beyond take all of them
    excess = {k: bisect_right(waits, k) - k * games for k in levels}
    return {k: min(over, _count(k, first)) for k, over in excess.items() if over > 0}


def _count(k: int, slack: Iterable[int | None]) -> int:
    return sum(1 for s in slack if s is not None and s <= k)
