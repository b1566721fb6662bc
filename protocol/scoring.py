"""How a group of attacks or responses is judged: what the judge is asked, and what its verdicts make of the items (GAME.md 2-3).

Pure but for `judge_group`, which asks. Invariants: a failed verdict never becomes a number; an item that no verdict covers becomes
`judge_failed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from protocol.interfaces import Judge
from protocol.preferences import compare, comparisons, rewards
from protocol.randomness import derive_seed
from protocol.roles import Player
from protocol.rules import GameRules
from protocol.states import AttackState, ResponseState, fixed_reward
from protocol.types import Completion, Criterion, Item, JudgeRequest, Preference, Seed, Verdict

S = TypeVar("S", AttackState, ResponseState)

UNJUDGED = 0.0  # reward of a valid item whose player's judge is switched off (GAME.md 2)


@dataclass(frozen=True, slots=True)
class GroupScores:
    """What the judge made of the valid members of a group, by their place among the valid ones."""

    rewards: list[float | None]
    preferences: list[Preference]
    verdicts: list[Verdict]
    comparisons: int
    disagreements: int


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a group is judged: `pointwise`, or pairwise in one order or `both_orders`; not at all where the judge is not `on`."""

    pointwise: bool
    both_orders: bool
    on: bool = True

    @classmethod
    def of(cls, rules: GameRules, player: Player) -> Self:
        """As the rules say for that player's groups."""
        on = rules.game.attacker_judge if player == "attacker" else rules.game.defender_judge
        return cls(rules.pointwise, rules.both_orders, on)

    def questions(self, n: int) -> list[tuple[int, ...]]:
        """What is asked about a group of `n` valid items: for each verdict the places of the responses shown, in order."""
        if not self.on:
            return []
        return [(k,) for k in range(n)] if self.pointwise else [*comparisons(n, self.both_orders)]


def read_verdicts(n: int, scoring: Scoring, verdicts: Sequence[Verdict]) -> GroupScores:
    """Joins the verdicts on `scoring.questions(n)`. A comparison with a failed order yields nothing at all.

    An item none of whose questions succeeded has no reward and becomes `judge_failed`. Without a judge every item is worth 0.
    """
    if not scoring.on:
        return GroupScores([UNJUDGED] * n, [], [], 0, 0)
    if scoring.pointwise:
        alone = [None if v.scores is None or len(v.scores) != 1 else v.scores[0] for v in verdicts]
        return GroupScores(list(alone), [], list(verdicts), 0, 0)
    width = 2 if scoring.both_orders and n > 1 else 1
    orders = comparisons(n, scoring.both_orders)
    preferences = []
    for at in range(0, len(orders), width):
        i, j = orders[at]
        shown = [v.scores for v in verdicts[at : at + width]]
        if any(s is None or len(s) != 2 for s in shown):
            continue
        forward, *rest = [(s[0], s[1]) for s in shown if s is not None]
        swapped = (rest[0][1], rest[0][0]) if rest else None
        preferences.append(compare(i, j, forward, swapped))
    judged = [p for p in preferences if p.i != p.j]
    return GroupScores(
        rewards(n, preferences), judged, list(verdicts), len(judged), sum(1 for p in judged if not p.agreed)
    )


async def judge_group(
    judge: Judge, criterion: Criterion, seed: Seed, query: str, texts: Sequence[str], scoring: Scoring, rng: int
) -> GroupScores:
    """Has the judge answer `scoring.questions` about `texts`; asks nothing where there are none."""
    requests = [
        JudgeRequest(criterion, seed.category, query, tuple(texts[k] for k in shown), derive_seed(rng, at))
        for at, shown in enumerate(scoring.questions(len(texts)))
    ]
    return read_verdicts(len(texts), scoring, await judge.judge(requests) if requests else [])


def settle_states(states: Sequence[S], scores: GroupScores) -> list[S]:
    """The final states: `ok` becomes `judge_failed` where `scores`, which are those of the `ok` ones in order, have no reward."""
    rewards = iter(scores.rewards)
    return ["judge_failed" if state == "ok" and next(rewards) is None else state for state in states]


def make_items(
    completions: Sequence[Completion], states: Sequence[S], texts: Sequence[str | None], scores: GroupScores
) -> tuple[tuple[Item, ...], tuple[Preference, ...]]:
    """Items in their final states, and the preferences renumbered from valid members to all members.

    `scores` refers to the members whose state is `ok`, in order.
    """
    valid = [k for k, state in enumerate(states) if state == "ok"]
    reward_of = dict(zip(valid, scores.rewards, strict=True))
    ended = zip(completions, settle_states(states, scores), texts, strict=True)
    items = tuple(
        Item(completion, state, reward_of[k] if state == "ok" else fixed_reward(state), text)
        for k, (completion, state, text) in enumerate(ended)
    )
    renumbered = tuple(
        Preference(
            valid[p.i], valid[p.j], p.forward, p.swapped, None if p.winner is None else valid[p.winner], p.agreed
        )
        for p in scores.preferences
    )
    return items, renumbered
