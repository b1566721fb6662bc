"""Why nothing was learned: each state that keeps rows from being learned names its own setting, and none else's."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from cluster.cli.replay import replay as replay_command
from cluster.replay.read.choose import parse_filter
from cluster.replay.rules.tally import StateCounts
from cluster.replay.stats import GameCounts, ReplayStats, RowCounts
from cluster.supervise.diagnosis import Outcomes, diagnose
from protocol.recipe import Recipe
from protocol.roles import Player
from protocol.states import AttackState, ResponseState
from tests.unit.cluster.plan.plans import parse_plan

PROMPT = {"game": {"attacker_format": "prompt"}}
LM = {"judge": {"kind": "lm"}}
BAD = {"attack": {"malformed": 54, "too_long": 46}, "response": {"attack_invalid": 200}, "finished": 50}


def said(player: Player, recipe: dict[str, Any] | None = None, **seen: Any) -> str:
    return diagnose({player: Outcomes(**({"finished": 9} | seen))}, parse_plan(recipe or {}, Path("/runs/a")))


def keys(text: str) -> set[str]:
    return set(re.findall(r"\b[a-z_]+(?:\.[a-z_]+)+\b", text)) - {"rollout-0.log"}


WARM = {"models.attacker.path", "learners.attacker.sft"}
WARM_DEFENDER = {"models.defender.path", "learners.defender.sft"}


@pytest.mark.parametrize(
    ("player", "state", "recipe", "named"),
    [
        ("attacker", "malformed", {}, {"game.attacker_format", *WARM}),
        ("attacker", "too_long", {}, {"sampling.max_new_tokens", "models.attacker.path"}),
        ("attacker", "no_room", {}, {"sampling.max_new_tokens", "generation.max_model_len"}),
        ("attacker", "unfaithful", {}, {"game.faithfulness", "models.attacker.path"}),
        ("attacker", "judge_failed", LM, {"judge.sampling.max_new_tokens", "judge.structured"}),
        ("attacker", "no_valid_response", {}, set()),
        ("attacker", "ok", {}, {"game.attacks", "sampling.temperature"}),
        ("attacker", "ok", {"game": {"attacker_judge": False}}, {"game.attacker_judge"}),
        ("defender", "attack_invalid", {}, set()),
        ("defender", "malformed", {"game": {"defender_format": "think_answer"}}, {"game.defender_format", *WARM_DEFENDER}),
        ("defender", "too_long", {}, {"sampling.max_new_tokens", "models.defender.path"}),
        ("defender", "no_room", {}, {"sampling.max_new_tokens", "generation.max_model_len"}),
        ("defender", "judge_failed", LM, {"judge.sampling.max_new_tokens", "judge.structured"}),
        ("defender", "ok", {}, {"game.responses", "sampling.temperature"}),
        ("defender", "ok", {"game": {"defender_judge": False}}, {"game.defender_judge"}),
    ],
)  # fmt: skip
def test_a_state_names_its_own_setting(player: Player, state: str, recipe: dict[str, Any], named: set[str]) -> None:
    what = "attack" if player == "attacker" else "response"
    told = said(player, recipe, **{what: {state: 90, "other": 10}})
    assert f"90 % {state}" in told and keys(told) == named
    for key in named:  # and each is a key of the recipe
        section: Any = Recipe()
        for name in key.split("."):
            assert name in type(section).model_fields, key
            section = getattr(section, name)


def test_every_state_has_words() -> None:
    for player, states in (("attacker", get_args(AttackState)), ("defender", get_args(ResponseState))):
        what = "attack" if player == "attacker" else "response"
        for state in states:
            assert f"\n  {state}: " in said(player, **{what: {state: 1}}), state


def test_the_values_and_only_simpler_formats_are_told() -> None:
    recipe = {**PROMPT, "sampling": {"max_new_tokens": 64}}
    told = said("attacker", recipe, **BAD).split("\n  ")
    assert told[0] == "attacker: of 100 attacks 54 % malformed, 46 % too_long"
    assert told[1].startswith("malformed: ") and "think_prompt" not in told[1]
    assert "too_long: raise sampling.max_new_tokens (now 64), or " in told[2]
    assert told[1].endswith("; learners.attacker.sft helps only in steps that have a row")
    assert "set game.attacker_format (now think_prompt) to prompt" in said("attacker", **BAD)


def test_a_defender_that_was_not_asked_points_at_the_attacker() -> None:
    told = said("defender", **BAD).split("\n  ")
    assert told[0] == "defender: of 200 responses 100 % attack_invalid" and "the attacker's problem" in told[1]
    assert told[2:] == said("attacker", **BAD).split("\n  "), "the attacker's own words follow"
    seen = Outcomes(**BAD)
    both = diagnose({"attacker": seen, "defender": seen}, parse_plan({}, Path("/runs/a"))).split("\n  ")
    assert both == [*told[2:], *told[:2]], "once"


def test_small_shares_are_told_without_a_remedy() -> None:
    told = said("attacker", attack={"ok": 90, "malformed": 10})
    assert "10 % malformed" in told and "malformed:" not in told


def test_rows_and_games_that_were_dropped_are_told() -> None:
    rows = {"attacker": {"stale": 30, "tie": 3, "capacity": 30}, "defender": {}}
    told = said("attacker", attack={"ok": 9}, evicted=rows, abandoned={"timeout": 5, "stopped": 90})
    assert {"replay.max_staleness", "replay.capacity_rows"} <= keys(told)
    assert "5 games were given up (5 timeout): logs/rollout-0.log" in told and "stopped" not in told
    assert "given up" not in said("attacker", attack={"ok": 9}, abandoned={"timeout": 1})
    assert said("attacker", finished=0) == "attacker: no game finished"


def test_the_command_is_one_that_exists() -> None:
    told = said("attacker", attack={"too_long": 9})
    (command,) = re.findall(r"python -m cluster replay .*", told)
    words = command.split()[4:]
    assert words[0] == "/runs/a"
    options = dict(zip(words[1:-1:2], words[2::2], strict=True))
    assert options == {"--player": "attacker", "--state": "too_long", "--limit": "3"} and words[-1] == "--text"
    assert all(name.removeprefix("--") in replay_command.__annotations__ for name in [*options, "--text"])
    parse_filter(options["--player"], None, options["--state"], None, None)


def test_the_command_survives_a_path_with_spaces() -> None:
    told = diagnose({"attacker": Outcomes({"too_long": 9}, finished=9)}, parse_plan({}, Path("/my runs/a")))
    assert shlex.split(told.splitlines()[-1])[-8:-7] == ["/my runs/a"]


def test_counts_since_a_moment_leave_out_what_was_before() -> None:
    def at(ok: int, malformed: int, tie: int) -> Outcomes:
        rows = {"attacker": RowCounts(evicted={"tie": tie}), "defender": RowCounts()}
        states = StateCounts({"ok": ok, "malformed": malformed}, {"ok": ok})
        return Outcomes.of(ReplayStats(True, GameCounts(finished=ok + malformed), rows, states))

    since = at(90, 30, 7).since(at(90, 10, 3))
    assert (since.attack, since.response, since.finished) == ({"malformed": 20}, {}, 20)
    assert since.evicted == {"attacker": {"tie": 4}, "defender": {}}
    assert at(90, 30, 7).since(at(90, 30, 7)) == at(90, 30, 7)
    assert replace(since, finished=0).since(Outcomes()).attack == {"malformed": 20}
