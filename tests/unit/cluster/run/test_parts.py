"""The driver's pure parts: placement, run directory, watchdog, held-out counting, summary."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.inputs.recipe_file import load_recipe
from cluster.measure.heldout import tally
from cluster.plan.demand import ENGINE_GIB, check_room, demand_of
from cluster.run.folder import check_free, find_run, lock_run, make_run, name_run, resumes_above_zero, run_path
from cluster.run.wiring import settle_every
from cluster.rundir import RunDir
from cluster.supervise.watchdog import Snapshot, Watchdog
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe
from protocol.types import Verdict


def test_demand_counts_every_part() -> None:
    recipe = parse_recipe(
        {
            "generation": {"workers": 2, "cpus_per_worker": 1.0, "kv_cache_gib": 2.0},
            "judge": {"workers": 3, "cpus_per_worker": 0.5},
            "learners": {
                "attacker": {"ranks": 4, "cpus_per_rank": 1.0},
                "defender": {"ranks": 1, "gpus_per_rank": 1.0},
            },
        }
    )
    demand = demand_of(recipe)
    assert demand.cpus == pytest.approx(2 * 0.05 + 4 * 1.0 + 3 * 0.5 + 0.1 + 4 * 1.0 + 0.25)
    assert demand.gpus == 1.0
    assert len(demand.bundles) == 2 + 4 + 3 + 1
    assert demand.memory_gib > 4 * 2.0


def test_a_frozen_player_needs_no_ranks_and_a_judge_of_its_own_needs_gpus() -> None:
    recipe = parse_recipe(
        {
            "generation": {"gpus_per_worker": 1.0},
            "judge": {"kind": "lm", "workers": 3, "gpus_per_worker": 2.0, "engine": {"tensor_parallel": 2}},
            "learners": {
                "attacker": {"train": False, "gpus_per_rank": 1.0},
                "defender": {"ranks": 4, "gpus_per_rank": 1.0},
            },
        }
    )
    demand = demand_of(recipe)
    assert demand.gpus == 2 + 3 * 2 + 4
    assert [b["GPU"] for b in demand.bundles if "GPU" in b] == [1.0, 1.0, 2.0, 2.0, 2.0]


def test_an_lm_judges_engines_take_memory_and_a_rule_judge_takes_none() -> None:
    engine = {"kv_cache_gib": 0.25}
    judge = {"kind": "lm", "workers": 2, "engine": engine}
    more = demand_of(parse_recipe({"judge": judge})).memory_gib - demand_of(Recipe()).memory_gib
    assert more == pytest.approx(2 * (ENGINE_GIB + 0.25))


@pytest.mark.parametrize(
    ("cpus", "memory", "message"), [(0.5, 64.0, "CPUs at once, this machine has 0.5 free"), (64, 0.5, "GiB of memory")]
)
def test_too_small_a_machine_is_refused_in_words(cpus: float, memory: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_room(demand_of(Recipe()), cpus, 0, memory, "this machine")


def named(tmp_path: Path, name: str | None = "a") -> Recipe:
    return parse_recipe({"run": {"dir": str(tmp_path), "name": name}})


def test_a_run_directory_appears_whole_and_its_name_is_taken_then(tmp_path: Path) -> None:
    recipe = named(tmp_path)
    run_dir = make_run(recipe, "")
    assert {p.name for p in run_dir.path.iterdir()} == {
        "logs",
        "checkpoints",
        "replay",
        "recipe.yaml",
        "quarantine.jsonl",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(UserError, match=r"run\.name: a exists .*--resume"):
        check_free(recipe)


def test_a_run_without_a_name_gets_the_recipes_and_the_time(tmp_path: Path) -> None:
    recipe = name_run(named(tmp_path, None), Path("x/sandbox.yaml"))
    assert run_path(recipe).name.startswith("sandbox-2")


def test_resuming_what_is_no_run_or_is_finished(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        find_run(tmp_path)
    run_dir = make_run(named(tmp_path), "")
    assert find_run(run_dir.path) == run_dir
    run_dir.summary.write_text(json.dumps({"status": "finished"}))
    with pytest.raises(UserError, match="is finished"):
        find_run(run_dir.path)


def test_a_run_is_kept_from_a_second_driver(tmp_path: Path) -> None:
    run_dir = make_run(named(tmp_path), "")
    with lock_run(run_dir), pytest.raises(UserError, match="another driver"), lock_run(run_dir):
        pass
    with lock_run(run_dir):
        pass


def test_who_pushes_first_when_a_run_is_resumed(tmp_path: Path) -> None:
    assert resumes_above_zero(RunDir(tmp_path), {"attacker": 0, "defender": 0}) == set()
    (tmp_path / "checkpoints" / "attacker" / "step-5").mkdir(parents=True)
    (tmp_path / "checkpoints" / "defender" / "step-5.tmp").mkdir(parents=True)
    assert resumes_above_zero(RunDir(tmp_path), {"attacker": 0, "defender": 0}) == {"attacker"}
    assert resumes_above_zero(RunDir(tmp_path), {"attacker": 0, "defender": 2}) == {"attacker", "defender"}


def test_a_torn_summary_does_not_keep_a_run_from_being_resumed(tmp_path: Path) -> None:
    run_dir = make_run(named(tmp_path), "")
    run_dir.summary.write_text('{"status": "fin')
    assert find_run(run_dir.path) == run_dir and run_dir.read_summary() == {}


def test_a_recipe_file_of_any_name_gives_a_legal_run_name(tmp_path: Path) -> None:
    recipe = name_run(named(tmp_path, None), Path("my recipe (2).yaml"))
    assert load_recipe(make_run(recipe, "").recipe).run.name == recipe.run.name


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


@pytest.mark.parametrize(
    ("values", "every"),
    [
        ({}, 0),
        ({"learners": {"alternate_every": 5}}, 5),
        ({"replay": {"max_staleness": 0}}, 1),
        ({"replay": {"max_staleness": 0}, "learners": {"alternate_every": 5}}, 1),
    ],
)
def test_who_waits_for_its_version_to_be_served(values: dict[str, object], every: int) -> None:
    assert settle_every(parse_recipe(values)) == every


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
