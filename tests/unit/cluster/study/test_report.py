"""What the study says, from recorded runs: means, paired differences, the front, the paper's claims, the text and the picture."""

import itertools
import math
import random
from pathlib import Path

import pytest

from cluster.study.__main__ import PICTURE
from cluster.study.compare import Place, difference, mean_over_seeds, pareto_front
from cluster.study.conclusions import conclusions
from cluster.study.figures import BASE_SUCCESS, COMPLIANCE, POOLED_SUCCESS, Faced, dump, figures_of, load
from cluster.study.plot import draw
from cluster.study.pooled import pooled_by_seed, pooled_mean
from cluster.study.report import report
from cluster.study.variants import VARIANTS
from protocol.errors import UserError
from tests.paths import DOCS
from tests.unit.cluster.study.study_runs import ORIGIN, STEPS, measured, study, summary

LIKE_PAPER = {  # (attack success, benign compliance) of three seeds, in the paper's order of attack success
    "simultaneous": [(0.04, 0.80), (0.05, 0.81), (0.06, 0.79)],
    "alternating": [(0.10, 0.70), (0.11, 0.71), (0.12, 0.69)],
    "frozen-attacker": [(0.16, 0.78), (0.17, 0.79), (0.18, 0.77)],
    "on-policy": [(0.50, 0.60), (0.51, 0.61), (0.52, 0.59)],
    "pointwise": [(0.30, 0.90), (0.31, 0.91), (0.32, 0.89)],
    "grpo": [(0.20, 0.75), (0.21, 0.76), (0.22, 0.74)],
}


def test_a_paired_difference_is_the_students_t_interval_over_seeds() -> None:
    found = study({"simultaneous": [(0.1, 0.8), (0.2, 0.8), (0.3, 0.8)], "grpo": [(0.2, 0.8), (0.4, 0.8), (0.6, 0.8)]})
    diff = difference(found, BASE_SUCCESS, "grpo", "simultaneous")
    assert diff is not None and diff.seeds == 3 and diff.direction == "open"
    half = 4.302653 * 0.1 / math.sqrt(3)  # t table, 2 degrees of freedom, 0.975; the differences are 0.1, 0.2, 0.3
    assert (diff.interval.value, diff.interval.high) == pytest.approx((0.2, 0.2 + half), abs=1e-6)


def test_only_seeds_that_both_variants_finished_are_paired() -> None:
    found = study({"simultaneous": [(0.1, 0.8), (0.2, 0.8), (0.9, 0.8)], "grpo": [(0.3, 0.8), (0.4, 0.8)]})
    diff = difference(found, BASE_SUCCESS, "grpo", "simultaneous")
    assert diff is not None and diff.seeds == 2 and diff.interval.value == pytest.approx(0.2)
    assert diff.direction == "higher"


def test_one_seed_has_a_mean_but_decides_nothing() -> None:
    found = study({"simultaneous": [(0.1, 0.8)], "grpo": [(0.9, 0.2)]})
    diff = difference(found, BASE_SUCCESS, "grpo", "simultaneous")
    assert diff is not None and diff.direction == "open"
    assert "90.0 (one seed)" in report(found, PICTURE)


def test_the_front_is_what_brute_force_says() -> None:
    rng = random.Random(3)
    grid = (0.0, 0.25, 0.5, 0.75, 1.0)
    for _ in range(200):
        places = [Place(str(k), rng.choice(grid), rng.choice(grid)) for k in range(6)]
        beaten = {
            a.variant
            for a, b in itertools.permutations(places, 2)
            if b.attack_success <= a.attack_success and b.benign_compliance >= a.benign_compliance
            if (b.attack_success < a.attack_success) or (b.benign_compliance > a.benign_compliance)
        }
        front = pareto_front(places)
        assert {p.variant for p in front} == {p.variant for p in places} - beaten
        assert [p.attack_success for p in front] == sorted(p.attack_success for p in front)


def test_results_in_the_papers_order_agree_with_it() -> None:
    text = "\n".join(conclusions(study(LIKE_PAPER)))
    assert "Of the 7 orderings that the paper reports or argues for, 7 came out here" in text
    assert "contradicts" not in text


def test_results_the_other_way_round_contradict_it_in_words() -> None:
    turned = {**LIKE_PAPER, "simultaneous": LIKE_PAPER["on-policy"], "on-policy": LIKE_PAPER["simultaneous"]}
    text = "\n".join(conclusions(study(turned)))
    line = next(x for x in text.splitlines() if x.startswith("- simultaneous < on-policy"))
    assert "(4.7 < 19.9 and 8.5 < 49.5 there)" in line and "-46.0 points" in line
    assert line.endswith("**contradicts the paper**.")


def test_what_the_seeds_do_not_decide_is_reported_so() -> None:
    same = {v: [(0.1, 0.8), (0.2, 0.7), (0.3, 0.9)] for v in ("simultaneous", "pointwise")}
    same["pointwise"] = list(reversed(same["pointwise"]))
    text = "\n".join(conclusions(study(same)))
    assert "not decided: the interval includes 0" in text and "no difference is significant" in text


def test_the_conclusions_name_the_front_and_who_is_behind_it() -> None:
    text = "\n".join(conclusions(study(LIKE_PAPER)))
    assert "compliance): simultaneous, pointwise judge." in text
    assert "Behind it: alternating, frozen attacker, GRPO, on-policy (frozen reference)." in text


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"status": "failed", "note": "an engine did not start"}, "failed: an engine did not start"),
        ({"steps": {"attacker": 40, "defender": 39}}, "took {'attacker': 40, 'defender': 39} updates"),
        ({"heldout": {}}, "nothing was measured"),
    ],
)
def test_a_run_that_does_not_count_is_left_out_with_its_reason(changed: dict[str, object], note: str) -> None:
    bad = figures_of("grpo", 9, STEPS, {**summary(1.0), **changed}, ORIGIN)
    found = study({"grpo": [(0.1, 0.8), (0.1, 0.8)]})
    found = type(found)(found.updates, found.settings, found.changes, (*found.runs, bad), ())
    assert note in bad.note
    mean = mean_over_seeds(found, "grpo", BASE_SUCCESS)
    assert mean is not None and mean.value == pytest.approx(0.1)
    text = report(found, PICTURE)
    assert "2 of 3 runs count" in text and f"- grpo, seed 9: {bad.note}" in text


def test_a_frozen_attacker_counts_with_no_steps_and_no_trained_attacker_measurement() -> None:
    value = summary(steps={"attacker": 0, "defender": 40})
    del value["heldout"]["end_trained_attacker"]
    found = figures_of("frozen-attacker", 1, {"attacker": 0, "defender": 40}, value, ORIGIN)
    assert found.counts and found.value(COMPLIANCE) == 0.8


def test_cross_play_pools_only_seeds_on_which_all_trained_attackers_played() -> None:
    def faced(seed: int, attacker: str, success: float) -> Faced:
        return Faced(seed, attacker, "grpo", measured(success, 0.8))

    entries = (faced(1, "base", 0.9), faced(1, "grpo", 0.2), faced(1, "pointwise", 0.4), faced(2, "grpo", 0.3))
    found = study({"grpo": [(0.1, 0.8)]}, entries)
    assert pooled_by_seed(found, "grpo", POOLED_SUCCESS) == {1: pytest.approx(0.3)}
    mean = pooled_mean(found, "grpo", POOLED_SUCCESS)
    assert mean is not None and mean.value == pytest.approx(0.3)
    assert "| GRPO | 90.0 | 25.0 | 40.0 | 30.0 (one seed) | 80.0 (one seed) |" in report(found, PICTURE)


def test_a_study_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    found = study(LIKE_PAPER, (Faced(1, "base", "grpo", measured(0.5, 0.5)),))
    (tmp_path / "study.json").write_text(dump(found))
    assert load(tmp_path / "study.json") == found
    (tmp_path / "study.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match=r"format 99, this code reads 1"):
        load(tmp_path / "study.json")


def test_the_picture_shows_every_variant_and_the_front_and_is_repeatable() -> None:
    found = study(LIKE_PAPER)
    picture = draw(found)
    assert picture == draw(found)
    for text in (*(v.label for v in VARIANTS), "Pareto front of the means", "before training: attack success 70 %"):
        assert text in picture
    assert draw(study({})).startswith("<?xml")


def test_a_study_without_a_finished_run_says_so() -> None:
    assert "No run finished" in report(study({}), PICTURE)


def test_the_committed_report_is_what_the_committed_figures_say() -> None:
    found = load(DOCS / "study.json")
    assert (DOCS / "study.md").read_text() == report(found, PICTURE)
