"""What a run leaves written: `summary.json`, and the ends that it names."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from cluster.exits import RunEnd, is_resumable
from cluster.inputs.package_versions import package_versions
from cluster.measure.heldout import Measurement
from cluster.measure.points import HeldoutPoint
from cluster.observe.line import line
from cluster.observe.sinks.outlet import SinkCounts
from cluster.observe.view import RunStats, view_of
from cluster.publish.stats import (
    PhaseTimes,
    PlayerPushes,
    PublisherStats,
    PushTimes,
    TransportState,
    WarmStart,
    WorkerState,
)
from cluster.replay.stats import GameCounts, ReplayStats, RowCounts
from cluster.run.end_tables import heldout_table, run_table
from cluster.run.summary import RunOutcome, list_exports, summarize
from cluster.rundir import RunDir
from judge.stats import ApiUsage, EngineUsage, JudgeStats, add_judges
from protocol.roles import PLAYERS
from tests.unit.cluster.plan.plans import parse_plan
from tests.unit.cluster.run.moments import HITS, REPLAY

MEASURED = Measurement(0.5, 0.25, 0.75, None, 8, 4, 4, 0, 0, 0, 0)


def test_a_resumed_part_that_fails_early_keeps_what_the_first_part_counted() -> None:
    replay = ReplayStats(
        answered=True,
        games=GameCounts(started=5, finished=4, abandoned={"stopped": 1}),
        rows={p: RowCounts(appended=5, learned=3, held=2) for p in PLAYERS},
    )
    publisher = PublisherStats(True, {p: PlayerPushes(step=7, versions_pushed=7) for p in PLAYERS})
    outcome = RunOutcome(RunEnd.INTERRUPTED, 10.0, stats=RunStats(replay, publisher), heldout={"start": MEASURED})
    first = json.loads(json.dumps(summarize(parse_plan({}), outcome)))
    assert first["games"]["abandoned"] == 1 and first["games"]["abandoned_by"] == {"stopped": 1}
    second = summarize(parse_plan({}), RunOutcome(RunEnd.FAILED, 5.0, "why"), first)
    assert second["steps"] == {"attacker": 7, "defender": 7} == second["versions_pushed"]
    assert second["wall_s_total"] == 15.0
    assert second["heldout"] == {"start": MEASURED.as_dict(), "points": [], "skipped": {}}
    assert all(second[key] == first[key] for key in ("games", "rows", "staleness", "states", "alarm"))


def test_the_sections_of_a_summary_keep_their_keys() -> None:
    times = PushTimes(2, 1, 0.5, 0.1, 0.6, 0.2, {"load": PhaseTimes(0.3, 0.4)})
    off = TransportState("nccl", "host", 2, off_since=2)
    pushed = PlayerPushes(pushes=times, workers=(WorkerState("attacker-0", "healthy", 3, "sum"),), transport=off)
    stats = RunStats(
        REPLAY, PublisherStats(True, {"attacker": pushed, "defender": PlayerPushes()}), HITS, replaced={"stuck": 2}
    )
    summary = summarize(parse_plan({}), RunOutcome(RunEnd.FINISHED, 1.0, stats=stats))
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
    assert summary["transport"]["attacker"] == {"asked": "nccl", "in_use": "host", "failures": 2, "off_since": 2}
    assert summary["transport"]["defender"]["in_use"] == "host"
    assert summary["replaced"] == {"stuck": 2}
    assert summary["promotion"] is None and summary["probe"] is None


def test_what_sinks_dropped_is_added_up_over_the_parts_of_a_run() -> None:
    first = RunOutcome(RunEnd.INTERRUPTED, 1.0, sinks={"wandb": SinkCounts(90, 10, "is too slow")})
    before = json.loads(json.dumps(summarize(parse_plan({}), first)))
    assert before["sinks"] == {"wandb": {"written": 90, "dropped": 10, "failed": "is too slow"}}
    after = summarize(parse_plan({}), RunOutcome(RunEnd.FINISHED, 1.0, sinks={"wandb": SinkCounts(5, 1)}), before)
    assert after["sinks"] == {"wandb": {"written": 95, "dropped": 11, "failed": ""}}
    assert (
        summarize(parse_plan({}), RunOutcome(RunEnd.FINISHED, 1.0), {"steps": dict.fromkeys(PLAYERS, 0)})["sinks"] == {}
    )


def test_the_scores_while_it_learned_are_in_the_summary_with_what_gave_none() -> None:
    point = HeldoutPoint("step-40", 40, {"attacker": 3, "defender": 7}, True, 0.12, None, None, 50, 0, 10, 9.0, 2.5)
    ended = RunOutcome(RunEnd.FINISHED, 1.0, heldout={"start": MEASURED}, points=(point,), skipped={"late": 2})
    heldout = json.loads(json.dumps(summarize(parse_plan({}), ended)))["heldout"]
    assert list(heldout) == ["start", "points", "skipped"] and heldout["skipped"] == {"late": 2}
    assert heldout["points"] == [asdict(point)]
    assert next(iter(heldout_table({"heldout": heldout}).columns[1].cells)).plain.startswith("50")
    assert summarize(parse_plan({}), RunOutcome(RunEnd.FINISHED, 1.0))["heldout"] == {}, "there were no held-out seeds"


def test_a_warm_start_is_shown_and_summed_up_apart_from_the_steps() -> None:
    plan = parse_plan({"learners": {"attacker": {"sft": {"warm_steps": 5}}}})
    warm = PublisherStats(True, {"attacker": PlayerPushes(warm=WarmStart(3, 5, 4.0, 1.25)), "defender": PlayerPushes()})
    shown = line(view_of(plan, RunStats(publisher=warm)))
    assert shown.startswith("attacker step warm 3/5, nll 4 -> 1.25 v0") and "defender step 0/1000" in shown
    summary = json.loads(json.dumps(summarize(plan, RunOutcome(RunEnd.FAILED, 1.0, stats=RunStats(publisher=warm)))))
    assert summary["warm_start"] == {"attacker": {"done": 3, "wanted": 5, "first_nll": 4.0, "nll": 1.25}}
    assert summary["steps"] == {"attacker": 0, "defender": 0}
    later = summarize(plan, RunOutcome(RunEnd.FINISHED, 1.0), summary)
    assert later["warm_start"] == summary["warm_start"], "the part that resumed took none of them"


def test_a_frozen_player_is_shown_and_summed_up_as_frozen() -> None:
    plan = parse_plan({"learners": {"attacker": {"train": False}}})
    assert line(view_of(plan, RunStats())).startswith("attacker frozen, defender step 0/1000")
    summary = summarize(plan, RunOutcome(RunEnd.FINISHED, 1.0, stats=RunStats(REPLAY, pool=HITS)))
    assert summary["export"] == {"attacker": None, "defender": "export/defender"}
    assert list(run_table(summary).columns[1].cells) == ["frozen", "0"]
    assert summary["alarm"] == {"raised": 2, "paused_s": 31.3} and summary["judge"]["pool"]["cache_hits"] == 7


def test_only_what_was_trained_to_the_end_is_called_trained() -> None:
    run = RunDir(Path("/runs/a"))
    ended = RunOutcome(RunEnd.FINISHED, 1.0, "nothing was learned", barren=("attacker",))
    summary = json.loads(json.dumps(summarize(parse_plan({}), ended)))
    assert (summary["status"], summary["note"]) == ("finished", "nothing was learned")
    assert (summary["trained"], summary["barren"]) == (["attacker", "defender"], ["attacker"])
    assert list_exports(run, summary) == [
        "trained models: /runs/a/export/defender",
        "as they began: /runs/a/export/attacker",
    ]
    both = summarize(parse_plan({}), replace(ended, barren=PLAYERS))
    assert list_exports(run, both) == ["as they began: /runs/a/export/attacker and /runs/a/export/defender"]
    good = summarize(parse_plan({}), replace(ended, barren=()))
    assert list_exports(run, good) == ["trained models: /runs/a/export/attacker and /runs/a/export/defender"]
    failed = summarize(parse_plan({}), replace(ended, end=RunEnd.FAILED))
    assert failed["export"] == {"attacker": None, "defender": None} and list_exports(run, failed) == []
    assert list(run_table(failed).columns[1].cells) == ["0", "0"], "neither is frozen"


def test_what_the_judges_counted_is_added_up() -> None:
    worker = JudgeStats(1, 2, 1, {"no score": 2}, EngineUsage(completions=10, tokens=50), busy_s=1.5)
    both = add_judges([worker, worker])
    assert both == JudgeStats(2, 4, 2, {"no score": 4}, EngineUsage(completions=20, tokens=100), busy_s=3.0)
    assert both.unread_rate == 0.2 and both.cost is None
    judge = summarize(parse_plan({}), RunOutcome(RunEnd.FAILED, 1.0, stats=RunStats(judges=both)))["judge"]
    assert (judge["unread"], judge["unread_rate"], judge["tokens"]) == ({"no score": 4}, 0.2, 100)
    assert add_judges([JudgeStats(3, 5, 0)]) == JudgeStats(3, 5, 0)

    endpoint = add_judges([JudgeStats(usage=ApiUsage(requests=4, cost=0.5, budget_left=1.5))])
    assert endpoint.cost == 0.5 and endpoint.unread_rate == 0.0
    judge = summarize(parse_plan({}), RunOutcome(RunEnd.FAILED, 1.0, stats=RunStats(judges=endpoint)))["judge"]
    assert judge["budget_left"] == 1.5 and "budget_tokens_left" not in judge, "there is no such budget"


def test_a_summary_of_a_run_that_never_began_is_still_json() -> None:
    summary = summarize(parse_plan({}), RunOutcome(RunEnd.FAILED, 1.0, "why"))
    assert json.loads(json.dumps(summary))["steps"] == {"attacker": 0, "defender": 0}
    assert summary["push"] == {"attacker": {}, "defender": {}} and summary["judge"] == {
        "verdicts": 0,
        "failed": 0,
        "pool": {},
    }
    assert set(package_versions()) == {"ray", "torch", "vllm", "deepspeed", "transformers"}


def test_an_end_says_what_it_means() -> None:
    ends = [(end.word, end.exit_status) for end in RunEnd]
    assert ends == [("finished", 0), ("failed", 1), ("failed", 2), ("interrupted", 130)]
    assert not is_resumable("finished") and all(is_resumable(word) for word in ("failed", "interrupted", None))
