"""What the replay buffer reads of a row, and the small games that the other replay tests play."""

from collections.abc import Sequence

from cluster.replay.rules.facts import read_facts
from protocol.roles import Player
from protocol.rows import to_batch
from protocol.types import Completion, GameRecord, Group, Item, Preference, Seed

Rewards = Sequence[float | None]
SEEDS = [Seed(f"h{k}", "break the lock", "harmful") for k in range(5)] + [
    Seed(f"b{k}", "fix the bike", "benign") for k in range(7)
]


def group(game_id: int, player: Player, index: int, rewards: Rewards, version: int = 0, tie: bool = False) -> Group:
    """A group whose items have these rewards; with `tie` the judge did not stand by its verdict on items 0 and 1."""
    items = tuple(
        Item(Completion.of((1, 2), (3, 4, k), (-0.1, -0.2, -0.3), f"text {k}", version=version), "ok", reward)
        for k, reward in enumerate(rewards)
    )
    preferences = (Preference(0, 1, (5.0, 3.0), (2.0, 4.0), None, False),) if tie else ()
    return Group(game_id, player, index, "h0", "harmful", items, preferences, (), version)


def record(
    game_id: int,
    version: int = 0,
    attack: Rewards = (9.0, 2.0),
    responses: Sequence[Rewards] = ((8.0, 1.0), (6.0, 3.0)),
    defender_version: int | None = None,
) -> GameRecord:
    """A finished game: one attacker row and one defender row for each entry of `responses`, both played at `version` by default."""
    theirs = version if defender_version is None else defender_version
    groups = (
        group(game_id, "attacker", 0, attack, version),
        *(group(game_id, "defender", k, rewards, theirs) for k, rewards in enumerate(responses)),
    )
    return GameRecord(game_id, SEEDS[0], groups, ("ok", "malformed"), ("ok", "ok", "too_long"), 8, 1, 2, 5)


def test_a_row_without_a_pair_is_named_by_its_reason() -> None:
    rows = [
        group(1, "attacker", 0, (9.0, 2.0)),
        group(2, "attacker", 0, (4.0, 4.0)),
        group(3, "attacker", 0, (4.0, None)),
        group(4, "attacker", 0, (None, None)),
        group(5, "attacker", 0, (5.0, 3.0), tie=True),
        group(6, "attacker", 0, (-1.0, 3.0)),
    ]
    facts = read_facts(to_batch(rows), "dpo")
    assert [f.unlearnable for f in facts] == [None, "tie", "no_pair", "no_pair", "tie", None]
    assert [f.reward for f in facts] == [5.5, 4.0, 4.0, None, 4.0, 1.0]
    assert [f.row_id for f in facts] == [f"{k}/attacker/0" for k in range(1, 7)]

    grpo = read_facts(
        to_batch(rows), "grpo"
    )  # it needs a reward, not a pair: a mean of zero advantage is its own affair
    assert [f.unlearnable for f in grpo] == [None, None, None, "no_reward", None, None]


def test_facts_are_read_from_a_slice_too() -> None:
    rows = [group(k, "defender", 0, (float(k), 1.0), version=k) for k in range(5)]
    facts = read_facts(to_batch(rows).slice(2, 2), "ipo")
    assert [(f.game_id, f.version, f.reward) for f in facts] == [(2, 2, 1.5), (3, 3, 2.0)]
