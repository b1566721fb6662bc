"""One game, from its seed to its judged groups (GAME.md 1-3).

`play_game` asks; everything it decides is in the pure functions above it. It owns no task, no worker and no clock: deadlines are
the interfaces' own. Invariants: every attack and every response ends in exactly one state; the sampling seeds depend
only on (run seed, game id, move), so a game dealt again is the same game.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from protocol.formats import FORMATS
from protocol.interfaces import Generator, Judge
from protocol.preferences import compare, comparisons, rewards
from protocol.prompts import attacker_messages, defender_messages
from protocol.randomness import derive_seed
from protocol.roles import Player
from protocol.rules import GameRules
from protocol.states import fixed_reward
from protocol.types import (
    Ask,
    Completion,
    Criterion,
    Deal,
    GameRecord,
    Group,
    Item,
    JudgeRequest,
    Preference,
    Seed,
    Verdict,
)

UNJUDGED = 0.0  # reward of a valid item whose player's judge is switched off (GAME.md 2)
DEFENDER_CRITERION: dict[str, Criterion] = {"benign": "compliance", "harmful": "deflection"}
ATTACKER_CRITERION: dict[str, Criterion] = {"benign": "refusal", "harmful": "compliance"}


def read_completion(completion: Completion, format_name: str) -> tuple[str, str | None]:
    """The state before any judge is asked (`ok`, `too_long` or `malformed`) and the visible text of an `ok` one."""
    if completion.finish == "length":
        return "too_long", None
    visible = FORMATS[format_name].visible(completion.text)
    return ("malformed", None) if visible is None else ("ok", visible)


def best_response(items: Sequence[Item], optimistic: bool) -> int | None:
    """The place of the response that an attack is scored through: the defender's best (highest reward), or the first valid.

    None if no response is `ok` with a reward.
    """
    valid = [(k, item.reward) for k, item in enumerate(items) if item.state == "ok" and item.reward is not None]
    if not valid:
        return None
    return max(valid, key=lambda kr: (kr[1], -kr[0]))[0] if optimistic else valid[0][0]


@dataclass(frozen=True, slots=True)
class Scored:
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


def read_verdicts(n: int, scoring: Scoring, verdicts: Sequence[Verdict]) -> Scored:
    """Joins the verdicts on `scoring.questions(n)`. A comparison with a failed order yields nothing at all.

    An item none of whose questions succeeded has no reward and becomes `judge_failed`. Without a judge every item is worth 0.
    """
    if not scoring.on:
        return Scored([UNJUDGED] * n, [], [], 0, 0)
    if scoring.pointwise:
        alone = [None if v.scores is None or len(v.scores) != 1 else v.scores[0] for v in verdicts]
        return Scored(list(alone), [], list(verdicts), 0, 0)
    width = 2 if scoring.both_orders and n > 1 else 1
    orders = comparisons(n, scoring.both_orders)
    preferences = []
    for at in range(0, len(orders), width):
        i, j = orders[at]
        scores = [v.scores for v in verdicts[at : at + width]]
        if any(s is None or len(s) != 2 for s in scores):
            continue
        forward, *rest = [(s[0], s[1]) for s in scores if s is not None]
        swapped = (rest[0][1], rest[0][0]) if rest else None
        preferences.append(compare(i, j, forward, swapped))
    judged = [p for p in preferences if p.i != p.j]
    return Scored(rewards(n, preferences), judged, list(verdicts), len(judged), sum(1 for p in judged if not p.agreed))


async def score(
    judge: Judge, criterion: Criterion, seed: Seed, query: str, texts: Sequence[str], scoring: Scoring, rng: int
) -> Scored:
    """Has the judge answer `scoring.questions` about `texts`; asks nothing where there are none."""
    requests = [
        JudgeRequest(criterion, seed.category, query, tuple(texts[k] for k in shown), derive_seed(rng, at))
        for at, shown in enumerate(scoring.questions(len(texts)))
    ]
    return read_verdicts(len(texts), scoring, await judge.judge(requests) if requests else [])


def settle(
    completions: Sequence[Completion], states: Sequence[str], texts: Sequence[str | None], scored: Scored
) -> tuple[tuple[Item, ...], tuple[Preference, ...]]:
    """Items in their final states, and the preferences renumbered from valid members to all members.

    `scored` refers to the members whose state is `ok`, in order.
    """
    valid = [k for k, state in enumerate(states) if state == "ok"]
    reward_of = dict(zip(valid, scored.rewards, strict=True))
    items = []
    for k, (completion, state, text) in enumerate(zip(completions, states, texts, strict=True)):
        if state != "ok":
            items.append(Item(completion, state, fixed_reward(state), text))
        elif reward_of[k] is None:
            items.append(Item(completion, "judge_failed", None, text))
        else:
            items.append(Item(completion, "ok", reward_of[k], text))
    renumbered = tuple(
        Preference(
            valid[p.i], valid[p.j], p.forward, p.swapped, None if p.winner is None else valid[p.winner], p.agreed
        )
        for p in scored.preferences
    )
    return tuple(items), renumbered


@dataclass(frozen=True, slots=True)
class _Table:
    """What stays the same through one game."""

    deal: Deal
    rules: GameRules
    attacker: Generator
    defender: Generator
    judge: Judge

    def ask(self, player: Player, move: int, messages: tuple[dict[str, str], ...], n: int) -> Ask:
        game = self.deal.game_id
        seeds = tuple(derive_seed(self.rules.seed, game, player, move, k) for k in range(n))
        return Ask(f"{game}-{player}-{move}", messages, seeds, self.rules.sampling)

    async def faithful(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text; none where faithfulness is not judged."""
        seed = self.deal.seed
        if not self.rules.game.faithfulness:
            return []
        rng = derive_seed(self.rules.seed, self.deal.game_id, "faithful")
        requests = [
            JudgeRequest("faithfulness", seed.category, seed.text, (text,), derive_seed(rng, k))
            for k, text in enumerate(texts)
        ]
        return await self.judge.judge(requests) if requests else []

    async def respond(self, place: int, attack: str) -> tuple[list[Completion], list[str], list[str | None], Scored]:
        """The defender's responses to one attack, read and judged."""
        game, seed = self.rules.game, self.deal.seed
        messages = defender_messages(attack, game.prompts, game.defender_format)
        completions = await self.defender.generate(self.ask("defender", place, messages, game.responses))
        read = [read_completion(c, game.defender_format) for c in completions]
        texts = [text for _, text in read]
        query = attack if game.defender_query == "attack" else seed.text
        rng = derive_seed(self.rules.seed, self.deal.game_id, "judge-defender", place)
        scored = await score(
            self.judge,
            DEFENDER_CRITERION[seed.category],
            seed,
            query,
            [text for text in texts if text is not None],
            Scoring.of(self.rules, "defender"),
            rng,
        )
        return completions, [state for state, _ in read], texts, scored


async def play_game(deal: Deal, rules: GameRules, attacker: Generator, defender: Generator, judge: Judge) -> GameRecord:
    """Plays one game to its end.

    Args:
        deal: the game's id and seed.
        rules: the run's.
        attacker, defender, judge: see `protocol.interfaces`.

    Returns:
        The record, with one group for the attacker and one for each attack that was answered.

    Raises:
        Whatever the generators raise (from the Defender in an `ExceptionGroup`); the caller counts the game as abandoned.
    """
    table, game, seed = _Table(deal, rules, attacker, defender, judge), rules.game, deal.seed

    messages = attacker_messages(seed, game.prompts, game.attacker_format)
    attacks = await attacker.generate(table.ask("attacker", 0, messages, game.attacks))
    read = [read_completion(c, game.attacker_format) for c in attacks]
    states, texts = [state for state, _ in read], [text for _, text in read]

    faith = await table.faithful([text for text in texts if text is not None])
    valid = [k for k, text in enumerate(texts) if text is not None] if game.faithfulness else []
    for k, verdict in zip(valid, faith, strict=True):
        if verdict.faithful is None:
            states[k] = "judge_failed"
        elif not verdict.faithful:
            states[k] = "unfaithful"

    asked = [(k, text) for k, text in enumerate(texts) if states[k] == "ok" and text is not None]
    async with asyncio.TaskGroup() as group:  # one that fails cancels its siblings: an abandoned game asks nothing more
        tasks = [group.create_task(table.respond(k, text)) for k, text in asked]
    answers = [task.result() for task in tasks]

    attacker_version = min(c.first_version for c in attacks)
    groups: list[Group] = []
    through: list[str] = []
    verdicts = [*faith]
    response_states = ["attack_invalid"] * ((game.attacks - len(asked)) * game.responses)
    compared, disagreed = 0, 0
    for (k, _), (completions, response_read, response_texts, scored) in zip(asked, answers, strict=True):
        items, preferences = settle(completions, response_read, response_texts, scored)
        groups.append(
            Group(
                deal.game_id,
                "defender",
                k,
                seed.id,
                seed.category,
                items,
                preferences,
                tuple(scored.verdicts),
                attacker_version,
            )
        )
        verdicts += scored.verdicts
        response_states += [item.state for item in items]
        compared, disagreed = compared + scored.comparisons, disagreed + scored.disagreements
        best = best_response(items, game.optimistic)
        if best is None:
            failed = any(item.state == "judge_failed" for item in items)
            states[k] = "judge_failed" if failed else "no_valid_response"
        else:
            through.append(items[best].visible or "")

    rng = derive_seed(rules.seed, deal.game_id, "judge-attacker")
    scored = await score(
        judge, ATTACKER_CRITERION[seed.category], seed, seed.text, through, Scoring.of(rules, "attacker"), rng
    )
    items, preferences = settle(attacks, states, texts, scored)
    defender_version = min((c.first_version for done in answers for c in done[0]), default=None)
    own = (*faith, *scored.verdicts)
    attack_group = Group(deal.game_id, "attacker", 0, seed.id, seed.category, items, preferences, own, defender_version)
    verdicts += scored.verdicts
    return GameRecord(
        game_id=deal.game_id,
        seed=seed,
        groups=(attack_group, *groups),
        attack_states=tuple(item.state for item in items),
        response_states=tuple(response_states),
        verdicts=sum(1 for v in verdicts if not v.remembered),
        verdicts_failed=sum(1 for v in verdicts if v.failure is not None),
        disagreements=disagreed + scored.disagreements,
        comparisons=compared + scored.comparisons,
    )
