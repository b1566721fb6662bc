"""Settings under which a player that learns could be taught nothing, because no two of its items could ever differ in reward.

A reward is worth something only beside another one: DPO and IPO need a pair whose rewards differ, GRPO subtracts the mean. What
can be had by which settings follows from GAME.md 2:

| setting | attack | response |
|---|---|---|
| judged | -1, 0 to 10 | -1, 0 to 10 |
| that player's judge switched off | -1, 0 | -1, 0 |
| `judge.kind: none`, and a judge is asked on the way | -1 | -1 |
| `judge.kind: none`, and faithfulness is asked for | -1 | no response at all |

-1 is within reach of every format, also of `plain`: whoever does not stop is `too_long` (`no_room`, which has no reward, is rare:
`consistency` asks for a context that holds an attack and an answer). So a player whose judge is switched off can still learn to
keep to its format and to stop: -1 and 0 differ, and the ablation without an attacker's judge is just that.
"""

from collections.abc import Iterator

from protocol.recipe.schema import RecipeFields
from protocol.roles import Player

PENALTY, UNJUDGED, SCORES = "-1", "0", "0 to 10"


def possible_rewards(r: RecipeFields, player: Player) -> frozenset[str]:
    """What an item of this player can be worth. `SCORES` stands for many different rewards, the others for one each."""
    game, judged = r.game, r.judge.kind != "none"
    if player == "defender":
        if game.faithfulness and not judged:
            return frozenset()  # no attack is ever valid, so nobody is asked
        unjudged, reached = not game.defender_judge, True
    else:
        # An attack is scored through a response that has a reward.
        reached = judged or not (game.faithfulness or game.defender_judge)
        unjudged = not game.attacker_judge
    if not reached or (not judged and not unjudged):
        return frozenset({PENALTY})
    return frozenset({PENALTY, UNJUDGED if unjudged else SCORES})


def untaught(r: RecipeFields) -> Iterator[str]:
    """A sentence for each player that is to learn and cannot."""
    for player in r.trained:
        yield from _alone(r, player)
        rewards = possible_rewards(r, player)
        if len(rewards) < 2 and SCORES not in rewards:
            only = f"every reward is {next(iter(rewards))}" if rewards else "it is never asked"
            yield (
                f"judge.kind: none teaches the {player} nothing, because {only}; set judge.kind to rules, match, lm or api, "
                f"learners.{player}.train to false, or each of game.faithfulness, game.attacker_judge and game.defender_judge "
                "to false, so that format alone is learned"
            )


def _alone(r: RecipeFields, player: Player) -> Iterator[str]:
    """A group of one has nothing to compare with, unless its mean is taken over other groups, too."""
    key, items = ("attacks", r.game.attacks) if player == "attacker" else ("responses", r.game.responses)
    config = r.learners.of(player)
    by_groups = config.baseline == "batch" or r.quirks.grpo_baseline == "paper"
    if items > 1 or (config.loss == "grpo" and by_groups):
        return
    other = f", learners.{player}.baseline to batch" if config.loss == "grpo" else ""
    yield (
        f"game.{key}: {items} with loss {config.loss} teaches the {player} nothing, because it is compared with nothing else; "
        f"set game.{key} to at least 2{other}, or learners.{player}.train to false"
    )
