"""Why a player got nothing to learn from, in words: how what it wrote ended, and which setting changes that.

Pure: counts and a plan in, lines out; it says no text that a model wrote, only the command that shows some. Every state of
`protocol.states` that keeps rows from being learned has its own remedy here. It decides nothing (`barren` does).
"""

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self, get_args

from cluster.plan.plan import Plan
from cluster.replay.stats import ReplayStats
from protocol.formats import FORMATS
from protocol.recipe import GameConfig
from protocol.roles import PLAYERS, Player

NOTEWORTHY = 0.2  # a smaller share of a state does not explain a step without any row
SHOWN = 3  # outputs that the command shows


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of games, from one moment to another.

    Attributes:
        attack, response: their numbers by state.
        evicted: each player's rows that were dropped, by reason.
        finished: games; abandoned: games given up, by reason.
    """

    attack: Mapping[str, int] = field(default_factory=dict)
    response: Mapping[str, int] = field(default_factory=dict)
    evicted: Mapping[Player, Mapping[str, int]] = field(default_factory=lambda: {p: {} for p in PLAYERS})
    finished: int = 0
    abandoned: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, stats: ReplayStats) -> Self:
        """Of the whole run so far."""
        evicted = {p: dict(rows.evicted) for p, rows in stats.rows.items()}
        return cls(
            {str(state): n for state, n in stats.states.attack.items()},
            {str(state): n for state, n in stats.states.response.items()},
            evicted,
            stats.games.finished,
            dict(stats.games.abandoned),
        )

    def since(self, then: "Outcomes") -> "Outcomes":
        """Only what came after `then`; all of it if no game has finished since."""
        if self.finished == then.finished:
            return self
        return Outcomes(
            _less(self.attack, then.attack),
            _less(self.response, then.response),
            {p: _less(self.evicted[p], then.evicted[p]) for p in PLAYERS},
            self.finished - then.finished,
            _less(self.abandoned, then.abandoned),
        )


def diagnose(seen: Mapping[Player, Outcomes], plan: Plan) -> str:
    """A few lines: the states' shares, the settings that change them, and where to read some of the outputs.

    Args:
        seen: for each player that got nothing to learn from, what became of games since it last did.
    """
    lines = [line for player, outcomes in seen.items() for line in _explain(player, outcomes, plan)]
    if "defender" in seen and "attacker" not in seen and "attack_invalid" in _noteworthy(seen["defender"].response):
        lines += _explain("attacker", seen["defender"], plan)
    return "\n  ".join(lines)


def _explain(player: Player, seen: Outcomes, plan: Plan) -> list[str]:
    states = seen.attack if player == "attacker" else seen.response
    if not states:
        return [f"{player}: no game finished"]
    ended, evicted = _noteworthy(states), seen.evicted[player]
    lines = [_shares(player, states)]
    lines += [f"{state}: {_REMEDIES[state](player, plan)}" for state in ended if state in _REMEDIES]
    lines += [f"{reason}: {_LOST[reason](plan)}" for reason in _noteworthy(evicted) if reason in _LOST]
    given_up = Counter({reason: n for reason, n in seen.abandoned.items() if reason != "stopped"})
    if given_up.total() > NOTEWORTHY * (given_up.total() + seen.finished):
        why = ", ".join(f"{n} {reason}" for reason, n in given_up.most_common())
        lines.append(f"{given_up.total()} games were given up ({why}): logs/rollout-0.log says more")
    if ended[0] != "attack_invalid":  # of which there is nothing to read
        options = f"--player {player} --state {ended[0]} --limit {SHOWN} --text"
        lines.append(f"read {SHOWN} of them: python -m cluster replay {shlex.quote(str(plan.run_dir.path))} {options}")
    return lines


def _noteworthy(counts: Mapping[str, int]) -> list[str]:
    """The words with a share worth a sentence, and the most frequent one in any case; that one first."""
    ranked, total = Counter(counts).most_common(), sum(counts.values())
    return [word for k, (word, n) in enumerate(ranked) if k == 0 or n >= NOTEWORTHY * total]


def _shares(player: Player, states: Mapping[str, int]) -> str:
    what, total = "attacks" if player == "attacker" else "responses", sum(states.values())
    shares = ", ".join(f"{100 * n / total:.0f} % {state}" for state, n in Counter(states).most_common())
    return f"{player}: of {total} {what} {shares}"


def _less(now: Mapping[str, int], then: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(now) - Counter(then))


def _change_format(player: Player, plan: Plan) -> str:
    now = plan.rules.game.attacker_format if player == "attacker" else plan.rules.game.defender_format
    known = get_args(GameConfig.model_fields[f"{player}_format"].annotation)
    simpler = [name for name in known if len(FORMATS[name].parts) < len(FORMATS[now].parts)]
    ask_less = f"set game.{player}_format (now {now}) to {' or '.join(simpler)}, or " if simpler else ""
    # A step without a row leaves the demonstrations out, too: they are no remedy by themselves.
    warm = f"learners.{player}.sft helps only in steps that have a row"
    return f"{ask_less}{_begin_with(player, f'writes the format {now}')}; {warm}"


def _begin_with(player: Player, can: str) -> str:
    return f"begin with a model that {can} (models.{player}.path)"


def _write_longer(player: Player, plan: Plan) -> str:
    return (
        f"raise sampling.max_new_tokens (now {plan.rules.sampling.max_new_tokens}), or {_begin_with(player, 'stops')}"
    )


def _make_room(player: Player, plan: Plan) -> str:
    return (
        f"its prompts leave less than sampling.max_new_tokens ({plan.rules.sampling.max_new_tokens}) of the context: "
        f"raise generation.max_model_len (now {plan.generation.max_model_len})"
    )


def _stay_faithful(player: Player, plan: Plan) -> str:
    return f"{_begin_with(player, 'keeps the meaning')}, or set game.faithfulness to false"


def _judge_better(player: Player, plan: Plan) -> str:
    judge = plan.judge.config
    form = "" if judge.structured else ", set judge.structured to true"
    now = judge.sampling.max_new_tokens or "left to the server"
    return f"raise judge.sampling.max_new_tokens (now {now}){form}, or take another judge"


def _answer(player: Player, plan: Plan) -> str:
    return "the attack was valid and no response to it was, which is the Defender's problem"


def _attack(player: Player, plan: Plan) -> str:
    return "the Defender was not asked, because the attack was not valid, which is the attacker's problem"


def _prefer(player: Player, plan: Plan) -> str:
    game = plan.rules.game
    key, n, judged = (
        ("game.attacks", game.attacks, game.attacker_judge)
        if player == "attacker"
        else ("game.responses", game.responses, game.defender_judge)
    )
    if not judged:
        return f"all of them are worth 0, because game.{player}_judge is false: set it to true"
    return f"valid, but those of one game tie: raise {key} (now {n}) or sampling.temperature, or take another judge"


def _wait_longer(plan: Plan) -> str:
    return f"rows were too old when a step could have them: raise replay.max_staleness (now {plan.replay.table.max_staleness})"


def _keep_more(plan: Plan) -> str:
    return f"rows had no place: raise replay.capacity_rows (now {plan.replay.table.capacity_rows})"


_REMEDIES: dict[str, Callable[[Player, Plan], str]] = {  # by the state of an attack or a response
    "ok": _prefer,
    "malformed": _change_format,
    "too_long": _write_longer,
    "no_room": _make_room,
    "unfaithful": _stay_faithful,
    "judge_failed": _judge_better,
    "no_valid_response": _answer,
    "attack_invalid": _attack,
}
_LOST: dict[str, Callable[[Plan], str]] = {"stale": _wait_longer, "capacity": _keep_more}  # by why rows were dropped
