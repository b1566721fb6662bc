"""One game, from its seed to its judged groups (GAME.md 1-3).

`play_game` asks. What it decides is in pure functions: here, and for what is judged in `scoring`. It owns no task, no worker and no
clock: deadlines are the interfaces' own.

Each attack goes its own way: it is sampled, its faithfulness judged, answered, and its answers judged, without waiting for its
siblings. So it is an ask of its own: with one ask for all of them the longest attack would hold the others up, as in practice it is
sampling that takes the time. Only the Attacker's group, which compares them, waits for all.

Invariants: every attack and every response ends in exactly one state; the sampling seeds depend only on (run seed, game id, move,
place), so a game dealt again is the same game; the record's order is by place, not by time; whatever ends a game ends all that it
has asked, and it asks nothing more.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.formats import FORMATS
from protocol.interfaces import Generator, Judge
from protocol.plain import find_attack
from protocol.prompts import attacker_messages, defender_messages
from protocol.randomness import derive_seed
from protocol.roles import Player
from protocol.rules import GameRules
from protocol.scoring import GroupScores, Scoring, judge_group, make_items, settle_states
from protocol.states import AttackState, ReadState, ResponseState
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


def read_completion(completion: Completion, format_name: str, player: Player) -> tuple[ReadState, str | None]:
    """The state before any judge is asked (`ok`, `too_long`, `no_room` or `malformed`) and the visible text of an `ok` one.

    What the context cut short (`no_room`) is nobody's fault: it is neither read nor penalised, whatever it says.
    An attack is never empty: white space only is `malformed`, also where there is no format; there it is read as `plain` says,
    because models introduce what they rewrite. A response may be empty, and is judged as it was given.
    """
    if completion.finish != "stop":
        return ("too_long" if completion.finish == "length" else "no_room"), None
    fmt = FORMATS[format_name]
    visible = fmt.visible(completion.text)
    if player == "attacker" and not fmt.parts and visible is not None:
        visible = find_attack(visible)
    empty = player == "attacker" and not visible
    return ("malformed", None) if visible is None or empty else ("ok", visible)


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
    states: list[ResponseState]
    texts: list[str | None]
    scores: GroupScores


@dataclass(frozen=True, slots=True)
class _Attack:
    """One attack and what came of it; `answer` is None unless it was put to the Defender (then its state is still `ok`)."""

    completion: Completion
    state: AttackState
    text: str | None
    faith: list[Verdict]
    answer: _Responses | None = None


@dataclass(frozen=True, slots=True)
class _Game:
    """What stays the same through one game."""

    deal: Deal
    rules: GameRules
    attacker: Generator
    defender: Generator
    judge: Judge

    def sampling_seed(self, player: Player, move: int, place: int) -> int:
        return derive_seed(self.rules.seed, self.deal.game_id, player, move, place)

    async def attack(self, place: int) -> _Attack:
        """Has the attacker write the attack of that place, and plays on with it as far as it goes."""
        rules, game, seed = self.rules, self.rules.game, self.deal.seed
        messages = attacker_messages(seed, game.prompts, game.attacker_format)
        name, seeds = f"{self.deal.game_id}-attacker-{place}", (self.sampling_seed("attacker", 0, place),)
        (completion,) = await self.attacker.generate(Ask(name, messages, seeds, rules.sampling))
        state: AttackState
        state, text = read_completion(completion, game.attacker_format, "attacker")
        faith: list[Verdict] = []
        if text is not None and game.faithfulness:
            rng = derive_seed(derive_seed(rules.seed, self.deal.game_id, "faithful"), place)
            faith = await self.judge.judge([JudgeRequest("faithfulness", seed.category, seed.text, (text,), rng)])
            (verdict,) = faith
            state = "ok" if verdict.faithful else "judge_failed" if verdict.faithful is None else "unfaithful"
        if text is None or state != "ok":
            return _Attack(completion, state, text, faith)
        return _Attack(completion, state, text, faith, await self.respond(place, text))

    async def respond(self, place: int, attack: str) -> _Responses:
        """Has the defender answer the attack of that place."""
        game, seed = self.rules.game, self.deal.seed
        messages = defender_messages(attack, game.prompts, game.defender_format)
        seeds = tuple(self.sampling_seed("defender", place, k) for k in range(game.responses))
        ask = Ask(f"{self.deal.game_id}-defender-{place}", messages, seeds, self.rules.sampling)
        completions = await self.defender.generate(ask)
        read = [read_completion(c, game.defender_format, "defender") for c in completions]
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
        ExceptionGroup: of whatever the generators raise; the caller counts the game as abandoned.
    """
    table, game, seed = _Game(deal, rules, attacker, defender, judge), rules.game, deal.seed

    async with asyncio.TaskGroup() as group:  # one that fails cancels its siblings: an abandoned game asks nothing more
        tasks = [group.create_task(table.attack(place)) for place in range(game.attacks)]
    attacks = [task.result() for task in tasks]

    attacker_version = min(a.completion.first_version for a in attacks)
    states: list[AttackState] = []
    response_states: list[ResponseState] = []
    groups: list[Group] = []
    through: list[str] = []
    for place, attack in enumerate(attacks):
        answer = attack.answer
        if answer is None:
            states.append(attack.state)
            response_states += ["attack_invalid"] * game.responses
            continue
        items, preferences = make_items(answer.completions, answer.states, answer.texts, answer.scores)
        own = tuple(answer.scores.verdicts)
        groups.append(
            Group(deal.game_id, "defender", place, seed.id, seed.category, items, preferences, own, attacker_version)
        )
        ended = settle_states(answer.states, answer.scores)
        response_states += ended
        best = best_response(items, game.optimistic)
        if best is None:
            states.append("judge_failed" if "judge_failed" in ended else "no_valid_response")
        else:
            states.append("ok")
            through.append(items[best].visible or "")

    rng = derive_seed(rules.seed, deal.game_id, "judge-attacker")
    scores = await judge_group(
        judge, ATTACKER_CRITERION[seed.category], seed, seed.text, through, Scoring.of(rules, "attacker"), rng
    )
    items, preferences = make_items([a.completion for a in attacks], states, [a.text for a in attacks], scores)
    answers = [a.answer for a in attacks if a.answer is not None]
    defender_version = min((c.first_version for answer in answers for c in answer.completions), default=None)
    own = (*(v for a in attacks for v in a.faith), *scores.verdicts)
    attack_group = Group(deal.game_id, "attacker", 0, seed.id, seed.category, items, preferences, own, defender_version)
    scored = [scores, *(answer.scores for answer in answers)]
    verdicts = [v for g in (attack_group, *groups) for v in g.verdicts]
    return GameRecord(
        game_id=deal.game_id,
        seed=seed,
        groups=(attack_group, *groups),
        attack_states=tuple(settle_states(states, scores)),
        response_states=tuple(response_states),
        verdicts=sum(1 for v in verdicts if not v.remembered),
        verdicts_failed=sum(1 for v in verdicts if v.failure is not None),
        disagreements=sum(s.disagreements for s in scored),
        comparisons=sum(s.comparisons for s in scored),
    )
