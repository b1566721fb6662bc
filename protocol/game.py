"""One game, from its seed to its judged groups (GAME.md 1-3).

`play_game` asks. What it decides is in pure functions: here, and for what is judged in `scoring`. It owns no task, no worker and no
clock: deadlines are the interfaces' own. Invariants: every attack and every response ends in exactly one state; the sampling seeds
depend only on (run seed, game id, move), so a game dealt again is the same game.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.formats import FORMATS
from protocol.interfaces import Generator, Judge
from protocol.prompts import attacker_messages, defender_messages
from protocol.randomness import derive_seed
from protocol.roles import Player
from protocol.rules import GameRules
from protocol.scoring import GroupScores, Scoring, judge_group, make_items
from protocol.types import (
    Ask,
    Completion,
    Criterion,
    Deal,
    GameRecord,
    Group,
    Item,
    JudgeRequest,
    Verdict,
)

DEFENDER_CRITERION: dict[str, Criterion] = {"benign": "compliance", "harmful": "deflection"}
ATTACKER_CRITERION: dict[str, Criterion] = {"benign": "refusal", "harmful": "compliance"}


def read_completion(completion: Completion, format_name: str) -> tuple[str, str | None]:
    """The state before any judge is asked (`ok`, `too_long`, `no_room` or `malformed`) and the visible text of an `ok` one.

    What the context cut short (`no_room`) is nobody's fault: it is neither read nor penalised, whatever it says.
    """
    if completion.finish != "stop":
        return ("too_long" if completion.finish == "length" else "no_room"), None
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
class _Responses:
    """The defender's responses to one attack, read and judged."""

    completions: list[Completion]
    states: list[str]
    texts: list[str | None]
    scores: GroupScores


@dataclass(frozen=True, slots=True)
class _Game:
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

    async def judge_faithfulness(self, texts: Sequence[str]) -> list[Verdict]:
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

    async def respond(self, place: int, attack: str) -> _Responses:
        """Has the defender answer the attack of that place."""
        game, seed = self.rules.game, self.deal.seed
        messages = defender_messages(attack, game.prompts, game.defender_format)
        completions = await self.defender.generate(self.ask("defender", place, messages, game.responses))
        read = [read_completion(c, game.defender_format) for c in completions]
        texts = [text for _, text in read]
        query = attack if game.defender_query == "attack" else seed.text
        rng = derive_seed(self.rules.seed, self.deal.game_id, "judge-defender", place)
        scores = await judge_group(
            self.judge,
            DEFENDER_CRITERION[seed.category],
            seed,
            query,
            [text for text in texts if text is not None],
            Scoring.of(self.rules, "defender"),
            rng,
        )
        return _Responses(completions, [state for state, _ in read], texts, scores)


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
    table, game, seed = _Game(deal, rules, attacker, defender, judge), rules.game, deal.seed

    messages = attacker_messages(seed, game.prompts, game.attacker_format)
    attacks = await attacker.generate(table.ask("attacker", 0, messages, game.attacks))
    read = [read_completion(c, game.attacker_format) for c in attacks]
    states, texts = [state for state, _ in read], [text for _, text in read]

    faith = await table.judge_faithfulness([text for text in texts if text is not None])
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
    for (k, _), answer in zip(asked, answers, strict=True):
        scores = answer.scores
        items, preferences = make_items(answer.completions, answer.states, answer.texts, scores)
        groups.append(
            Group(
                deal.game_id,
                "defender",
                k,
                seed.id,
                seed.category,
                items,
                preferences,
                tuple(scores.verdicts),
                attacker_version,
            )
        )
        verdicts += scores.verdicts
        response_states += [item.state for item in items]
        compared, disagreed = compared + scores.comparisons, disagreed + scores.disagreements
        best = best_response(items, game.optimistic)
        if best is None:
            failed = any(item.state == "judge_failed" for item in items)
            states[k] = "judge_failed" if failed else "no_valid_response"
        else:
            through.append(items[best].visible or "")

    rng = derive_seed(rules.seed, deal.game_id, "judge-attacker")
    scores = await judge_group(
        judge, ATTACKER_CRITERION[seed.category], seed, seed.text, through, Scoring.of(rules, "attacker"), rng
    )
    items, preferences = make_items(attacks, states, texts, scores)
    defender_version = min((c.first_version for answer in answers for c in answer.completions), default=None)
    own = (*faith, *scores.verdicts)
    attack_group = Group(deal.game_id, "attacker", 0, seed.id, seed.category, items, preferences, own, defender_version)
    verdicts += scores.verdicts
    return GameRecord(
        game_id=deal.game_id,
        seed=seed,
        groups=(attack_group, *groups),
        attack_states=tuple(item.state for item in items),
        response_states=tuple(response_states),
        verdicts=sum(1 for v in verdicts if not v.remembered),
        verdicts_failed=sum(1 for v in verdicts if v.failure is not None),
        disagreements=disagreed + scores.disagreements,
        comparisons=compared + scores.comparisons,
    )
