"""What goes out to sinks: which numbers, under which names, on whose steps, how often."""

import math

from cluster.observe.kept import Kept, Sample
from cluster.observe.moment import Newest
from cluster.observe.sinks.feed import EVERY_S, Feed, name_series, of_steps
from cluster.observe.sinks.sink import Record
from cluster.observe.view import RunView, view_of
from protocol import metrics as m
from tests.unit.cluster.observe.run_files import POINT, STATS, TRAINED, report
from tests.unit.cluster.plan.plans import parse_plan

PLAN = parse_plan({})


def samples() -> list[Sample]:
    kept = Kept()
    Newest(PLAN, kept).note(STATS)
    for role in ("judge-0", "judge-1"):
        kept.of("driver-0").inc(m.RESTARTS, role=role, cause="stuck")
    kept.of("driver-0").set(m.PHASE, 1, phase="playing")
    return kept.samples()


def view(*heldout: object) -> RunView:
    return view_of(PLAN, STATS, heldout=heldout)  # type: ignore[arg-type]


def test_names_are_the_catalogues() -> None:
    assert name_series(m.LOSS, (("player", "attacker"),)) == ("attacker", "attacker/loss")
    assert name_series(m.REWARD, (("player", "defender"), ("category", "benign"))) == (
        "defender",
        "defender/reward/benign",
    )
    assert name_series(m.ATTACKS, (("state", "ok"), ("category", "harmful"))) == ("run", "run/attacks_total/ok/harmful")


def test_a_step_goes_out_at_once_on_its_players_axis() -> None:
    feed = Feed()
    feed.records(view(), [], [], 100.0)
    (record,) = feed.records(view(), [report("attacker", 3, loss=float("nan"))], samples(), 100.5)
    assert (record.axis, record.step, record.time_s) == ("attacker", 3, 1003.0)
    assert math.isnan(record.values["attacker/loss"]), "a loss that is no number is worth seeing"
    assert {name: value for name, value in record.values.items() if name != "attacker/loss"} == {
        "attacker/version": 2.0,
        "attacker/kl_nats": 0.01,
        "attacker/learning_rate": 1e-4,
        "attacker/step_seconds": 2.0,
        "attacker/lease_seconds": 0.3,
    }
    assert of_steps([report("attacker", 3)])[0].step == 3


def test_a_moment_goes_out_every_few_seconds_and_at_the_end() -> None:
    feed = Feed()
    assert {r.axis for r in feed.records(view(), [], samples(), 100.0)} == {"attacker", "defender", "run"}
    assert feed.records(view(), [], samples(), 100.0 + EVERY_S / 2) == []
    assert len(feed.records(view(), [], samples(), 100.0 + EVERY_S / 2, last=True)) == 3
    assert len(feed.records(view(), [], samples(), 100.0 + 2 * EVERY_S)) == 3


def test_a_moment_holds_rewards_states_staleness_and_the_judge() -> None:
    of = {record.axis: record for record in Feed().records(view(), [], samples(), 100.0)}
    attacker, run = of["attacker"].values, of["run"].values
    assert attacker["attacker/reward/harmful"] == 4.5 and "attacker/reward/benign" not in attacker
    assert (attacker["attacker/staleness_versions/mean"], attacker["attacker/staleness_versions/max"]) == (0.75, 2.0)
    assert attacker["attacker/version"] == 3.0 and attacker["attacker/rows_total/tie"] == 6.0
    assert of["defender"].values["defender/worker_version/defender-0"] == 2.0
    assert run["run/attacks_total/malformed/harmful"] == 2.0 and run["run/judge_failure_ratio"] == 0.1
    assert run["run/worker_restarts_total/stuck"] == 2.0, "of both judges"
    assert not any("phase" in name for name in run)
    assert of["attacker"].step == STATS.publisher.players["attacker"].step == of["run"].step


def test_held_out_scores_go_out_once_with_their_versions_and_none_of_an_earlier_part() -> None:
    feed = Feed()
    feed.records(view(), [], [], 100.0)
    assert feed.records(view(POINT, TRAINED), [], [], 101.0) == [
        Record(
            "heldout",
            4,
            1010.0,
            {
                "heldout/ratio/attack_success": 0.25,
                "heldout/ratio/over_refusal": 0.5,
                "heldout/version/attacker": 3.0,
                "heldout/version/defender": 3.0,
            },
        )
    ]
    assert feed.records(view(POINT), [], [], 102.0) == []
    assert [r.axis for r in Feed(["step-4"]).records(view(POINT), [], [], 1.0)] == ["attacker", "defender"], "staleness"
