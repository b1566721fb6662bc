"""Modes of the game that the demo does not play, each a whole sandbox run that is interrupted in the middle and resumed."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.sandbox import ensure_sandbox
from tests.e2e.runs import Program, Step, check_books, events, interrupt_at, leases, settings, summary_of

RECIPE = "deploy/recipes/sandbox.yaml"
STEPS, TURN = 6, 2


def values_for(*players: str, **learner: Any) -> dict[str, Any]:
    """Settings of a short run in which these players learn so."""
    short = {"run.steps": STEPS, "seeds.heldout": "null"}  # what is learned here is not measured
    return short | {
        f"learners.{p}.{key}": v for p in players for key, v in {"checkpoint_every": TURN, **learner}.items()
    }


def rows_of(run: Path, player: str) -> list[dict[str, Any]]:
    columns = ["row_id", "game_id", "version", "opponent_version"]
    segments = sorted((run / "replay").glob(f"{player}-*.arrow"))
    return [row for s in segments for row in pa.ipc.open_stream(s).read_all().select(columns).to_pylist()]


def versions_told(run: Path, player: str) -> list[tuple[int, int]]:
    """(steps done, version then), in order, as often as the learner told: when it asked for the next step, and at the end."""
    asked = [(e["step"], e["version"]) for e in events(run, "lease", "seen") if e["p"] == player]
    last = [row for row in pq.read_table(run / "metrics.parquet").to_pylist() if row["player"] == player][-1]
    assert last["step"] == STEPS
    return [*asked, (STEPS, last["version"])]


def play_in_two_parts(folder: Path, values: dict[str, Any], pause_at: Step) -> tuple[Path, dict[str, Any]]:
    """Interrupts the run when that step has got its games, and resumes it. Gives its directory and its last summary."""
    ensure_sandbox()
    run = folder / "m"
    interrupt_at(Program("train", RECIPE, *settings(folder, "m", **values)), run, pause_at)
    second = Program("train", "--resume", str(run))
    try:
        assert second.end(400) == 0, second.output
        assert not second.processes()
    finally:
        second.clean_up()
    summary = summary_of(run)
    check_books(summary)
    assert summary["status"] == "finished" and summary["alarm"]["raised"] == 0
    return run, summary


def check_learned_once(run: Path, players: tuple[str, ...]) -> dict[Step, list[int]]:
    """No game fills two steps of one player, and no row is stored twice. Gives the games of every step, as it was last taken."""
    taken = dict(leases(run))
    for player in players:
        games = [game for (p, _), ids in taken.items() if p == player for game in ids]
        assert len(games) == len(set(games)), player
        assert sorted(step for p, step in taken if p == player) == list(range(STEPS))
        stored = [row["row_id"] for row in rows_of(run, player)]
        assert len(stored) == len(set(stored))
    return taken


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_frozen_attacker_against_a_defender_that_learns_by_grpo(tmp_path: Path) -> None:
    values = values_for("defender", loss="grpo", reference="frozen", sampler="policy")
    run, summary = play_in_two_parts(tmp_path, {**values, "learners.attacker.train": "false"}, ("defender", 2))
    check_learned_once(run, ("defender",))
    assert summary["steps"] == {"attacker": 0, "defender": STEPS}
    assert summary["export"] == {"attacker": None, "defender": "export/defender"}
    assert [folder.name for folder in (run / "export").iterdir()] == ["defender"]
    assert summary["versions_pushed"]["attacker"] == 0 < summary["versions_pushed"]["defender"]
    rows = summary["rows"]
    assert rows["attacker"]["evicted"] == {"frozen": rows["attacker"]["appended"]}
    assert rows["defender"]["held"] == 0 < rows["defender"]["learned"]
    assert {row["version"] for row in rows_of(run, "attacker")} == {0}
    assert {row["opponent_version"] for row in rows_of(run, "defender")} == {0}
    assert not any(player == "attacker" for (player, _), _ in leases(run))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_players_that_take_turns_learn_against_the_opponent_as_it_stands_now(tmp_path: Path) -> None:
    values = values_for("attacker", "defender", reference="frozen", sampler="policy")
    run, summary = play_in_two_parts(tmp_path, {**values, "learners.alternate_every": TURN}, ("defender", 2))
    taken = check_learned_once(run, ("attacker", "defender"))
    assert summary["steps"] == {"attacker": STEPS, "defender": STEPS}
    # Checkpoints lie at the ends of turns, so that resuming repeats steps and reorders none.
    in_turns = [(p, k) for turn in range(0, STEPS, TURN) for p in ("attacker", "defender") for k in (turn, turn + 1)]
    assert list(dict.fromkeys(step for step, _ in leases(run))) == in_turns
    games = [game for ids in taken.values() for game in ids]
    assert len(games) == len(set(games)), "a game is learned by the player on turn alone"
    assert all(summary["rows"][p]["evicted"]["turn"] > 0 for p in ("attacker", "defender"))

    for player, opponent in (("attacker", "defender"), ("defender", "attacker")):
        told = versions_told(run, opponent)
        faced = {row["game_id"]: row["opponent_version"] for row in rows_of(run, player)}
        for step in range(STEPS):
            done = TURN * (step // TURN + (player == "defender"))  # what the opponent has learned by that turn
            ended = next(version for n, version in told if n == done)
            begun = [version for n, version in told if n == done + 1]  # its next turn, as it was last taken
            met = {faced[game] for game in taken[player, step] if faced.get(game) is not None}
            assert met and min(met) >= ended, (player, step)
            assert not begun or max(met) < begun[-1], (player, step)
