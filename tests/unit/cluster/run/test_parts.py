"""The driver's pure parts: placement, run directory, watchdog, held-out counting, summary."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.measure.heldout import tally
from cluster.observe.history import History
from cluster.observe.progress import line, picture
from cluster.observe.view import snapshot_of, view_of
from cluster.run.summary import package_versions, run_table, summarize
from cluster.rundir import RunDir
from cluster.supervise.watchdog import Snapshot, Watchdog, blocked_edge
from protocol.recipe import Recipe, parse_recipe
from protocol.types import Verdict


def test_a_resumed_part_that_fails_early_keeps_what_the_first_part_counted() -> None:
    rows = {p: {"appended": 5, "learned": 3, "held": 2, "evicted": {}} for p in ("attacker", "defender")}
    replay = {"games": {"started": 5, "finished": 4, "abandoned": {"stopped": 1}}, "rows": rows}
    players = {p: {"step": 7, "versions_pushed": 7} for p in ("attacker", "defender")}
    first = summarize(Recipe(), "interrupted", 10.0, 2.0, replay, {"players": players}, {"start": {"n": 1}})
    second = summarize(Recipe(), "failed", 5.0, None, {}, {}, {}, "why", first)
    assert second["steps"] == {"attacker": 7, "defender": 7} == second["versions_pushed"]
    assert second["games"]["abandoned"] == 1 and second["rows"] == rows and second["heldout"] == {"start": {"n": 1}}
    assert second["wall_s_total"] == 15.0


SNAPSHOT = Snapshot(
    now_s=10.0,
    steps={"attacker": 1, "defender": 1},
    games_finished=5,
    games_started=5,
    games_abandoned=0,
    tokens=100,
    verdicts=9,
    held={"attacker": 0, "defender": 0},
    batch={"attacker": 4, "defender": 4},
    healthy_judges=(2, 2),
    healthy_generators={"attacker": (1, 1), "defender": (1, 1)},
    admission="refused",
)


@pytest.mark.parametrize(
    ("change", "edge"),
    [
        ({"healthy_judges": (0, 4)}, "judge pool, 0/4 healthy"),
        ({"healthy_generators": {"attacker": (1, 1), "defender": (0, 1)}}, "defender's generation workers, 0/1"),
        ({"held": {"attacker": 0, "defender": 4}}, "holds 4 games for the defender learner"),
        ({"games_started": 8}, "3 games are in flight"),
        ({}, "no game is dealt: refused"),
    ],
)
def test_the_watchdog_names_the_blocked_edge(change: dict[str, object], edge: str) -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    now = replace(SNAPSHOT, **change)  # type: ignore[arg-type]
    assert dog.check(now) is None
    assert dog.check(replace(now, now_s=69.0)) is None
    said = dog.check(replace(now, now_s=71.0))
    assert said is not None and edge in said


def test_the_watchdog_is_quiet_while_anything_moves() -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    assert all(dog.check(replace(SNAPSHOT, now_s=40.0 * k, tokens=k)) is None for k in range(1, 20))


def test_a_run_whose_games_are_all_given_up_ends() -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    busy = [
        replace(SNAPSHOT, now_s=k, games_started=k, games_abandoned=k, games_finished=k // 50) for k in range(1, 300)
    ]
    assert all(dog.check(s) is None for s in busy)  # every fiftieth is finished
    said = [
        dog.check(replace(busy[-1], now_s=300 + k, games_started=300 + k, games_abandoned=300 + k)) for k in range(100)
    ]
    assert said[0] is None and "all given up" in str(said[-1])


def test_a_run_that_stays_paused_ends_with_the_judges_sentence() -> None:
    dog = Watchdog(stall_s=60, abandoned_in_a_row=100)
    why = "paused: judge failed 81 of the last 200 verdicts, alarm at 25 %; asking again with 4 games in 12 s"
    probing = [
        replace(SNAPSHOT, now_s=10.0 * k, games_finished=k, tokens=k, paused_s=10.0 * k, admission=why)
        for k in range(1, 7)
    ]
    assert [dog.check(s) for s in probing[:-1]] == [None] * 5  # its probes move, and that is no movement
    assert dog.check(probing[-1]) == f"no end of a pause of 60 s: {why}"


REPLAY = {
    "games": {"started": 9, "finished": 8, "abandoned": {}},
    "judge": {"verdicts": 80, "failed": 8, "comparisons": 20, "disagreements": 5},
    "alarm": {"raised": 2, "up_s": 0.0, "paused_s": 31.26, "failure_rate": 0.1},
    "held_games": {"attacker": 70, "defender": 3},
    "turn": "defender",
}


def test_a_moment_of_a_run_with_turns_says_whose_it_is_and_waits_for_nobody_else() -> None:
    recipe = parse_recipe({"learners": {"alternate_every": 5}})
    view = view_of(recipe, REPLAY, {}, {"cache_hits": 7})
    assert (view["flip_rate"], view["failure_rate"], view["paused"], view["cache_hits"]) == (0.25, 0.1, 0.0, 7)
    healthy = {"judge": (2, 2), "attacker": (1, 1), "defender": (1, 1)}
    snapshot = snapshot_of(recipe, view, 1.0, 0, healthy)
    assert snapshot.held == {"defender": 3}  # the attacker does not take its 70 games, and should not
    assert "1 games are in flight" in blocked_edge(snapshot)
    assert "defender (its turn)" in list(picture(view).columns[0].cells)


def test_where_one_order_is_judged_no_flip_rate_is_shown() -> None:
    paper = parse_recipe({"mode": "paper"})
    assert view_of(paper, {**REPLAY, "judge": {**REPLAY["judge"], "disagreements": 0}}, {}, {})["flip_rate"] is None  # type: ignore[dict-item]
    pointwise = parse_recipe({"judge": {"form": "pointwise"}})
    counted = {"verdicts": 80, "failed": 8, "comparisons": 0, "disagreements": 0}
    assert view_of(pointwise, {**REPLAY, "judge": counted}, {}, {})["flip_rate"] is None


def test_steps_without_a_measurement_are_nulls_in_the_history(tmp_path: Path) -> None:
    def step(n: int, **metrics: float) -> dict[str, object]:
        return {"player": "defender", "step": n, "version": n, "time": 1.0, "metrics": {"lr": 1.0, **metrics}}

    history = History(RunDir(tmp_path))
    history.add([step(1), step(2, loss=0.5)])
    history.write()
    resumed = History(RunDir(tmp_path))
    resumed.add([step(3)])
    resumed.write()
    rows = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
    assert [(row["lr"], row["loss"]) for row in rows] == [(1.0, None), (1.0, 0.5), (1.0, None)]
    empty = {"players": {"defender": {"step": 1, "metrics": {"lr": 1.0}}}}
    assert "defender step 1/1000 v0 loss -" in line(view_of(Recipe(), {}, empty, {}))


def test_a_paused_run_says_so_in_its_line() -> None:
    paused = {**REPLAY, "alarm": {**REPLAY["alarm"], "up_s": 9.0}, "admission": {"why": "paused: judge failed"}}  # type: ignore[dict-item]
    assert line(view_of(Recipe(), paused, {}, {})).endswith("; paused: judge failed")
    assert "judge failed" not in line(view_of(Recipe(), {**REPLAY, "admission": {"why": "judge failed"}}, {}, {}))


def test_a_frozen_player_is_shown_and_summed_up_as_frozen() -> None:
    recipe = parse_recipe({"learners": {"attacker": {"train": False}}})
    assert line(view_of(recipe, {}, {}, {})).startswith("attacker frozen, defender step 0/1000")
    summary = summarize(recipe, "finished", 1.0, None, REPLAY, {}, {}, pool={"cache_hits": 7})
    assert summary["export"] == {"attacker": None, "defender": "export/defender"}
    assert list(run_table(summary).columns[1].cells) == ["frozen", "0"]
    assert summary["alarm"] == {"raised": 2, "paused_s": 31.3} and summary["judge"]["pool"] == {"cache_hits": 7}


def test_heldout_fractions_leave_out_what_the_judge_could_not_read() -> None:
    def verdicts(*scores: float | None) -> list[Verdict]:
        return [Verdict("j", "r", failure="x") if s is None else Verdict("j", "r", scores=(s,)) for s in scores]

    judged = [
        ("harmful", verdicts(9, 0)),
        ("harmful", verdicts(0, 4)),
        ("harmful", verdicts(0, 9)),
        ("harmful", verdicts(None, 9)),
        ("benign", verdicts(8, 0)),
        ("benign", verdicts(1, 9)),
    ]
    m = tally(
        judged, [("benign", "unwrapped"), ("harmful", "unwrapped"), ("benign", "unjudged"), ("harmful", "unanswered")]
    )
    assert (m.attack_success, m.deflection) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (m.over_refusal, m.benign_compliance) == (0.5, 0.5)
    assert (m.n, m.n_harmful, m.n_benign, m.unwrapped, m.unanswered) == (5, 3, 2, 2, 1)
    assert (m.unjudged, m.unjudged_harmful) == (2, 1)
    nothing = tally([], [])
    assert nothing.attack_success is None and nothing.n == 0


def test_a_summary_of_a_run_that_never_began_is_still_json() -> None:
    summary = summarize(Recipe(), "failed", 1.0, None, {}, {}, {}, "why")
    assert json.loads(json.dumps(summary))["steps"] == {"attacker": 0, "defender": 0}
    assert set(package_versions()) == {"ray", "torch", "vllm", "deepspeed", "transformers"}
