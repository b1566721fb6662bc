"""The driver's pure parts: placement, run directory, watchdog, held-out counting, summary."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cluster.inputs.recipe_file import load_recipe
from cluster.measure.heldout import tally
from cluster.observe.history import History
from cluster.observe.metrics import PLAYER_GAUGES, ROW_STATES, RUN_GAUGES
from cluster.observe.progress import line, picture
from cluster.observe.view import PlayerView, RunStats, RunView, snapshot_of, view_of
from cluster.plan.demand import ENGINE_GIB, check_room, demand_of
from cluster.publish.stats import PhaseTimes, PlayerPushes, PublisherStats, PushTimes, StepReport, WorkerState
from cluster.replay.rules.admission import Admission
from cluster.replay.rules.tally import JudgeCounts
from cluster.replay.stats import AlarmState, GameCounts, ReplayStats, RowCounts
from cluster.run.folder import check_free, find_run, lock_run, make_run, name_run, resumes_above_zero, run_path
from cluster.run.states import RunEnd, is_resumable
from cluster.run.summary import Outcome, package_versions, run_table, summarize
from cluster.run.wiring import settle_every
from cluster.rundir import RunDir
from cluster.supervise.watchdog import Snapshot, Watchdog, blocked_edge
from judge.stats import ApiUsage, EngineUsage, JudgeStats, PoolStats, add_judges
from protocol.errors import UserError
from protocol.recipe import Recipe, parse_recipe
from protocol.roles import PLAYERS
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


def test_a_resumed_part_that_fails_early_keeps_what_the_first_part_counted() -> None:
    replay = ReplayStats(
        answered=True,
        games=GameCounts(started=5, finished=4, abandoned={"stopped": 1}),
        rows={p: RowCounts(appended=5, learned=3, held=2) for p in PLAYERS},
    )
    publisher = PublisherStats(True, {p: PlayerPushes(step=7, versions_pushed=7) for p in PLAYERS})
    outcome = Outcome(RunEnd.INTERRUPTED, 10.0, stats=RunStats(replay, publisher), heldout={"start": {"n": 1}})
    first = json.loads(json.dumps(summarize(Recipe(), outcome)))
    assert first["games"]["abandoned"] == 1 and first["games"]["abandoned_by"] == {"stopped": 1}
    second = summarize(Recipe(), Outcome(RunEnd.FAILED, 5.0, "why"), first)
    assert second["steps"] == {"attacker": 7, "defender": 7} == second["versions_pushed"]
    assert second["wall_s_total"] == 15.0 and second["heldout"] == {"start": {"n": 1}}
    assert all(second[key] == first[key] for key in ("games", "rows", "staleness", "states", "alarm"))


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


REPLAY = ReplayStats(
    answered=True,
    games=GameCounts(started=9, finished=8),
    judge=JudgeCounts(verdicts=80, failed=8, comparisons=20, disagreements=5),
    alarm=AlarmState(raised=2, up_s=0.0, paused_s=31.26, failure_rate=0.1),
    held_games={"attacker": 70, "defender": 3},
    turn="defender",
)
HITS = PoolStats(cache_hits=7)


def test_a_moment_of_a_run_with_turns_says_whose_it_is_and_waits_for_nobody_else() -> None:
    recipe = parse_recipe({"learners": {"alternate_every": 5}})
    stats = RunStats(REPLAY, pool=HITS)
    view = view_of(recipe, stats)
    assert (view.flip_rate, view.failure_rate, view.paused, view.cache_hits) == (0.25, 0.1, False, 7)
    snapshot = snapshot_of(recipe, view, stats, 1.0)
    assert snapshot.held == {"defender": 3}  # the attacker does not take its 70 games, and should not
    assert "1 games are in flight" in blocked_edge(snapshot)
    assert "defender (its turn)" in list(picture(view).columns[0].cells)


def test_where_one_order_is_judged_no_flip_rate_is_shown() -> None:
    paper = parse_recipe({"mode": "paper"})
    agreed = replace(REPLAY, judge=replace(REPLAY.judge, disagreements=0))
    assert view_of(paper, RunStats(agreed)).flip_rate is None
    pointwise = parse_recipe({"judge": {"form": "pointwise"}})
    alone = replace(REPLAY, judge=JudgeCounts(verdicts=80, failed=8))
    assert view_of(pointwise, RunStats(alone)).flip_rate is None


def test_steps_without_a_measurement_are_nulls_in_the_history(tmp_path: Path) -> None:
    def step(n: int, **metrics: float) -> StepReport:
        return StepReport("defender", n, n, 1.0, {"lr": 1.0, **metrics})

    history = History(RunDir(tmp_path))
    history.add([step(1), step(2, loss=0.5)])
    history.write()
    resumed = History(RunDir(tmp_path))
    resumed.add([step(3)])
    resumed.write()
    rows = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
    assert [(row["lr"], row["loss"]) for row in rows] == [(1.0, None), (1.0, 0.5), (1.0, None)]
    assert list(rows[0])[:4] == ["player", "step", "version", "time"]
    empty = PublisherStats(True, {"attacker": PlayerPushes(), "defender": PlayerPushes(step=1, metrics={"lr": 1.0})})
    assert "defender step 1/1000 v0 loss -" in line(view_of(Recipe(), RunStats(publisher=empty)))


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


def test_a_paused_run_says_so_in_its_line() -> None:
    quiet = replace(REPLAY, admission=Admission(0, "paused: judge failed"))
    paused = replace(quiet, alarm=replace(REPLAY.alarm, up_s=9.0))
    assert line(view_of(Recipe(), RunStats(paused))).endswith("; paused: judge failed")
    assert "judge failed" not in line(view_of(Recipe(), RunStats(quiet)))


def test_a_frozen_player_is_shown_and_summed_up_as_frozen() -> None:
    recipe = parse_recipe({"learners": {"attacker": {"train": False}}})
    assert line(view_of(recipe, RunStats())).startswith("attacker frozen, defender step 0/1000")
    summary = summarize(recipe, Outcome(RunEnd.FINISHED, 1.0, stats=RunStats(REPLAY, pool=HITS)))
    assert summary["export"] == {"attacker": None, "defender": "export/defender"}
    assert list(run_table(summary).columns[1].cells) == ["frozen", "0"]
    assert summary["alarm"] == {"raised": 2, "paused_s": 31.3} and summary["judge"]["pool"]["cache_hits"] == 7


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
    summary = summarize(Recipe(), Outcome(RunEnd.FAILED, 1.0, "why"))
    assert json.loads(json.dumps(summary))["steps"] == {"attacker": 0, "defender": 0}
    assert summary["push"] == {"attacker": {}, "defender": {}} and summary["judge"] == {
        "verdicts": 0,
        "failed": 0,
        "pool": {},
    }
    assert set(package_versions()) == {"ray", "torch", "vllm", "deepspeed", "transformers"}


def test_the_sections_of_a_summary_keep_their_keys() -> None:
    times = PushTimes(2, 1, 0.5, 0.1, 0.6, 0.2, {"load": PhaseTimes(0.3, 0.4)})
    pushed = PlayerPushes(pushes=times, workers=(WorkerState("attacker-0", "healthy", 3, "sum"),))
    stats = RunStats(REPLAY, PublisherStats(True, {"attacker": pushed, "defender": PlayerPushes()}), HITS)
    summary = summarize(Recipe(), Outcome(RunEnd.FINISHED, 1.0, stats=stats))
    assert list(summary["games"]) == ["started", "finished", "abandoned", "open", "redealt", "late", "abandoned_by"]
    counts = ["appended", "learned", "leased", "free", "held", "duplicates", "lost", "lost_at_least", "evicted"]
    assert list(summary["rows"]["attacker"]) == counts
    assert list(summary["staleness"]) == ["bound", "max_learned", "mean_learned", "attacker", "defender"]
    assert summary["states"] == {"attack": {}, "response": {}}
    pool = ["verdicts", "failed", "retried", "calls_failed", "cache_hits"]
    assert list(summary["judge"]["pool"]) == pool
    assert summary["push"]["attacker"] == {
        "count": 2,
        "moved": 1,
        "total_s": 0.5,
        "pause_s": 0.1,
        "mean_total_s": 0.6,
        "mean_pause_s": 0.2,
        "phases": {"load": {"last_s": 0.3, "mean_s": 0.4}},
    }
    assert summary["push"]["defender"] == {"count": 0}
    assert summary["workers"]["attacker"] == [
        {"name": "attacker-0", "state": "healthy", "version": 3, "checksum": "sum"}
    ]
    assert summary["promotion"] is None and summary["probe"] is None


def test_what_the_judges_counted_is_added_up() -> None:
    worker = JudgeStats(1, 2, 1, {"no score": 2}, EngineUsage(completions=10, tokens=50))
    both = add_judges([worker, worker])
    assert both == JudgeStats(2, 4, 2, {"no score": 4}, EngineUsage(completions=20, tokens=100))
    assert both.unread_rate == 0.2 and both.cost is None
    judge = summarize(Recipe(), Outcome(RunEnd.FAILED, 1.0, stats=RunStats(judges=both)))["judge"]
    assert (judge["unread"], judge["unread_rate"], judge["tokens"]) == ({"no score": 4}, 0.2, 100)
    assert add_judges([JudgeStats(3, 5, 0)]) == JudgeStats(3, 5, 0)

    endpoint = add_judges([JudgeStats(usage=ApiUsage(requests=4, cost=0.5, budget_left=1.5))])
    assert endpoint.cost == 0.5 and endpoint.unread_rate == 0.0
    judge = summarize(Recipe(), Outcome(RunEnd.FAILED, 1.0, stats=RunStats(judges=endpoint)))["judge"]
    assert judge["budget_left"] == 1.5 and "budget_tokens_left" not in judge, "there is no such budget"


def test_every_gauge_is_a_number_of_the_view() -> None:
    assert all(hasattr(RunView, key) for key in RUN_GAUGES)
    assert all(hasattr(PlayerView, key) for key in PLAYER_GAUGES)
    assert all(hasattr(RowCounts, key) for key in ROW_STATES)


def test_an_end_says_what_it_means() -> None:
    assert [(end.word, end.exit_status) for end in RunEnd] == [("finished", 0), ("failed", 1), ("interrupted", 130)]
    assert not is_resumable("finished") and all(is_resumable(word) for word in ("failed", "interrupted", None))
