"""The dealer: which game is played next, by whom, and what became of every game.

Game ids are sequential integers; the seed of a game is a pure function of (run seed, game id), so a game that is dealt
again is the same game. The categories alternate (equal share); within one, each epoch is a fresh shuffle. Invariants:

- **every game counted**: started == finished + abandoned + open + waiting to be dealt again.
- **finished once**: the second record of a game is refused and counted as late; so is one of an abandoned game.
- **one incarnation at a time**: a worker's name may carry an incarnation (`rollout-0@3f2a`). When the next incarnation of a name
  asks, the games of the one before are lost.
- **lost before new**: games that were lost are dealt again, lowest id first, before a new id is dealt.

Pure: time is a number that the caller passes. It does not decide how many games may start (`admission`).
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from protocol.errors import UserError
from protocol.randomness import derive_seed
from protocol.roles import CATEGORIES
from protocol.types import Deal, Seed


@dataclass(frozen=True, slots=True)
class _Open:
    """Who plays a game, and since when (the caller's clock)."""

    worker: str
    since_s: float


class Dealer:
    """See the module's docstring.

    Args:
        run_seed: `run.seed` of the recipe.
        seeds: the training seeds, in file order. With one category only that one is dealt.

    Raises:
        UserError: there are no seeds.
    """

    def __init__(self, run_seed: int, seeds: Sequence[Seed]) -> None:
        by_category = [[s for s in seeds if s.category == category] for category in CATEGORIES]
        self._by_category = [group for group in by_category if group]
        if not self._by_category:
            raise UserError("seeds.train: 0 seeds, at least 1 is needed; give a file with harmful or benign seeds")
        self._run_seed = run_seed
        self._orders: dict[tuple[int, int], list[int]] = {}
        self._next_id = 0
        self._again: list[int] = []  # a heap of ids
        self._open: dict[int, _Open] = {}
        self._finished: set[int] = set()
        self._abandoned: dict[int, str] = {}
        self.redealt = self.late = 0

    @property
    def started(self) -> int:
        """Distinct games dealt."""
        return self._next_id

    @property
    def finished(self) -> int:
        return len(self._finished)

    @property
    def abandoned(self) -> Counter[str]:
        """Abandoned games by reason."""
        return Counter(self._abandoned.values())

    @property
    def open_games(self) -> int:
        """Games that a worker plays now."""
        return len(self._open)

    def seed_of(self, game_id: int) -> Seed:
        """The seed of a game: a pure function of the run seed, the seeds and the id."""
        turn, slot = divmod(game_id, len(self._by_category))
        group = self._by_category[slot]
        epoch, place = divmod(turn, len(group))
        return group[self._order(slot, epoch)[place]]

    def deal(self, worker: str, games: int, now_s: float) -> list[Deal]:
        """`games` games for a worker: lost ones first, then new ones. Call `take_back_earlier` before."""
        deals = []
        for _ in range(games):
            if self._again:
                game_id = heapq.heappop(self._again)
                self.redealt += 1
            else:
                game_id = self._next_id
                self._next_id += 1
            self._open[game_id] = _Open(worker, now_s)
            deals.append(Deal(game_id, self.seed_of(game_id)))
        return deals

    def is_final(self, game_id: int) -> bool:
        """Whether the game is finished or abandoned."""
        return game_id in self._finished or game_id in self._abandoned

    def finish(self, game_id: int) -> bool:
        """Records a finished game, whoever played it. False (and one more `late`) if it was final already."""
        if self.is_final(game_id):
            self.late += 1
            return False
        self._settle(game_id)
        self._finished.add(game_id)
        return True

    def abandon(self, worker: str, game_id: int, reason: str) -> bool:
        """Gives a game up for good. False if it is final already or another worker plays it now."""
        game = self._open.get(game_id)
        if self.is_final(game_id) or (game is not None and game.worker != worker):
            return False
        self._settle(game_id)
        self._abandoned[game_id] = reason
        return True

    def take_back_earlier(self, worker: str) -> list[int]:
        """A worker asks: games of its earlier incarnations will be dealt again. Gives their ids."""
        return self._take_back(lambda game: game.worker != worker and _name(game.worker) == _name(worker))

    def take_back_from(self, worker: str) -> list[int]:
        """The worker died: its games, of whichever incarnation, will be dealt again. Gives their ids."""
        return self._take_back(lambda game: _name(game.worker) == _name(worker))

    def take_back_overdue(self, now_s: float, limit_s: float) -> list[int]:
        """Games open for longer than any game may take (a silent worker, a lost reply) will be dealt again. Gives their ids."""
        return self._take_back(lambda game: now_s - game.since_s > limit_s)

    def recover(self, finished: Iterable[int], abandoned: Mapping[int, str]) -> None:
        """After a restart: games below the highest known id that are not final will be dealt again."""
        self._finished.update(finished)
        self._abandoned.update({g: why for g, why in abandoned.items() if g not in self._finished})
        self._next_id = max([self._next_id - 1, *self._finished, *self._abandoned]) + 1
        self._again = [g for g in range(self._next_id) if not self.is_final(g)]  # sorted, so it is a heap

    def _settle(self, game_id: int) -> None:
        self._open.pop(game_id, None)
        if game_id >= self._next_id:  # dealt before a restart that forgot it: it and the ids before it were started
            for skipped in range(self._next_id, game_id):
                heapq.heappush(self._again, skipped)
            self._next_id = game_id + 1
        elif game_id in self._again:
            self._again.remove(game_id)
            heapq.heapify(self._again)

    def _take_back(self, is_lost: Callable[[_Open], bool]) -> list[int]:
        ids = [game_id for game_id, game in self._open.items() if is_lost(game)]
        for game_id in ids:
            del self._open[game_id]
            heapq.heappush(self._again, game_id)
        return ids

    def _order(self, slot: int, epoch: int) -> list[int]:
        key = (slot, epoch)
        if key not in self._orders:
            if len(self._orders) > 16:  # a few epochs of each category are in use at once; the rest can be made again
                self._orders.clear()
            order = list(range(len(self._by_category[slot])))
            category = self._by_category[slot][0].category
            random.Random(derive_seed(self._run_seed, "seeds", category, epoch)).shuffle(order)
            self._orders[key] = order
        return self._orders[key]


def _name(worker: str) -> str:
    return worker.partition("@")[0]
