"""From pairwise verdicts to rewards and preferences, and from those to the pair that DPO learns from (GAME.md 3 and 4).

Pure. A failure never becomes a number here: an item without a usable verdict has no reward, and an item without a reward
is in no pair.
"""

from collections.abc import Sequence

from protocol.types import Preference

SCORE_MIN, SCORE_MAX = 0.0, 10.0


def comparisons(n: int, both_orders: bool) -> list[tuple[int, int]]:
    """The ordered pairs to judge in a group of `n` valid items; a lone item is judged against itself, once.

    Returns:
        Tuples (shown as A, shown as B). With `both_orders` each pair i<j appears as (i, j) and (j, i), adjacent.
    """
    if n == 1:
        return [(0, 0)]
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    return [order for i, j in pairs for order in (((i, j), (j, i)) if both_orders else ((i, j),))]


def _sign(a: float, b: float) -> int:
    return (a > b) - (a < b)


def compare(i: int, j: int, forward: tuple[float, float], swapped: tuple[float, float] | None) -> Preference:
    """Joins the verdicts on one pair. All scores are given as (i's, j's), also for the swapped order.

    The winner is whom both orders name. If they name different winners, or either sees a draw, the pair is a tie;
    `agreed` is False only in the first case: one judge, two answers.
    """
    first = _sign(*forward)
    second = first if swapped is None else _sign(*swapped)
    agreed = first * second >= 0
    winner = {1: i, -1: j, 0: None}[first if first == second else 0]
    return Preference(i, j, forward, swapped, winner, agreed)


def rewards(n: int, preferences: Sequence[Preference]) -> list[float | None]:
    """Each item's mean score over its comparisons, clipped to [0, 10]; None for an item that no verdict covers.

    Args:
        n: items in the group; preferences refer to them by index.
        preferences: as `compare` returns them. A lone item compared with itself has i == j.
    """
    scores: list[list[float]] = [[] for _ in range(n)]
    for p in preferences:
        orders = [p.forward] if p.swapped is None else [p.forward, p.swapped]
        scores[p.i].append(sum(o[0] for o in orders) / len(orders))
        scores[p.j].append(sum(o[1] for o in orders) / len(orders))
    return [min(SCORE_MAX, max(SCORE_MIN, sum(s) / len(s))) if s else None for s in scores]


def pick_pair(item_rewards: Sequence[float | None], preferences: Sequence[Preference]) -> tuple[int, int] | None:
    """The (chosen, rejected) indices of a group: argmax and argmin of the reward, the first of equals.

    Items without a reward are left out. None where there is nothing to learn: fewer than two rewards, all equal, or
    a judge that did not stand by that very pair when it was asked the other way round.
    """
    known = [(reward, -k) for k, reward in enumerate(item_rewards) if reward is not None]
    if len(known) < 2:
        return None
    chosen = -max(known)[1]
    rejected = min((reward, k) for k, reward in enumerate(item_rewards) if reward is not None)[1]
    if item_rewards[chosen] == item_rewards[rejected]:
        return None
    for p in preferences:
        if {p.i, p.j} == {chosen, rejected} and p.winner is None:
            return None
    return chosen, rejected
