"""Finished games as large as real ones, made without playing: what a replay buffer takes.

With GRPO a game has `ATTACKS` attacks and so many responses to each: one group of attacks and `ATTACKS` groups of responses, a row
each. Items are drawn from a stock and no record holds one twice, so that pickling a record costs what a real one costs.
"""

import random
from collections.abc import Sequence

from protocol.roles import Player
from protocol.types import Completion, Deal, GameRecord, Group, Item, Preference

ATTACKS = 4
ROWS = 1 + ATTACKS  # of a game
ITEMS = ROWS * ATTACKS
PROMPT = tuple(range(64))
SCORES = tuple(8.0 - 2.0 * k for k in range(ATTACKS))  # each group has a clear order


def stock_of(tokens: int, games: int) -> list[list[Item]]:
    """The items of so many games, each of `tokens` tokens, four characters a token."""
    rng = random.Random(tokens)
    return [[_item(rng, tokens, SCORES[k % ATTACKS]) for k in range(ITEMS)] for _ in range(games)]


def _item(rng: random.Random, tokens: int, reward: float) -> Item:
    ids = tuple(rng.randrange(30_000) for _ in range(tokens))
    logprobs = tuple(-rng.random() for _ in range(tokens))
    text = "".join(rng.choices("abcdefgh ", k=4 * tokens))
    return Item(Completion.of(PROMPT, ids, logprobs, text), "ok", reward, text)


def record_of(deal: Deal, items: Sequence[Item]) -> GameRecord:
    """That game, finished."""
    places: list[tuple[Player, int]] = [("attacker", 0), *(("defender", k) for k in range(ATTACKS))]
    groups = tuple(
        _group(deal, player, index, tuple(items[ATTACKS * n : ATTACKS * (n + 1)]))
        for n, (player, index) in enumerate(places)
    )
    states = ("ok",) * ATTACKS
    return GameRecord(deal.game_id, deal.seed, groups, states, states * ATTACKS, 0, 0, 0, 0)


def _group(deal: Deal, player: Player, index: int, items: tuple[Item, ...]) -> Group:
    preferences = tuple(
        Preference(i, j, (SCORES[i], SCORES[j]), (SCORES[i], SCORES[j]), i, True)
        for i in range(ATTACKS)
        for j in range(i + 1, ATTACKS)
    )
    return Group(deal.game_id, player, index, deal.seed.id, deal.seed.category, items, preferences, (), 0)
