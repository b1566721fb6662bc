"""The table of synchronous play against the bound of 4."""

from pathlib import Path

import pytest

from cluster.inputs.recipe_file import load_recipe
from cluster.study.figures import RunFigures
from cluster.study.settings import changes_of
from tests.benchmarks.synchronous import LABELS, RECIPES, report
from tests.paths import RECIPES as DEPLOYED
from tests.unit.cluster.study.study_runs import ORIGIN, STEPS, figures_of, summary


def run(variant: str, seed: int, success: float, wall_s: float, **more: object) -> RunFigures:
    return figures_of(variant, seed, STEPS, summary(success, 0.8, wall_s_total=wall_s, **more), ORIGIN)


def cells(lines: list[str], name: str) -> list[str]:
    (line,) = (line for line in lines if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_recipes_differ_in_the_bound_alone() -> None:
    bound, synchronous = (load_recipe(RECIPES / f"{name}.yaml") for name in LABELS)
    assert changes_of(bound, load_recipe(DEPLOYED / "sandbox.yaml")) == {}
    assert changes_of(synchronous, bound) == {"synchronous": "True", "replay.max_staleness": "0"}


def test_runs_means_and_differences_paired_by_seed() -> None:
    runs = [
        *(run("bound-4", seed, success, 200.0) for seed, success in ((0, 0.10), (1, 0.20), (2, 0.30))),
        *(run("synchronous", seed, success, 400.0) for seed, success in ((0, 0.12), (1, 0.22), (2, 0.35))),
    ]
    lines = report(runs)
    # Attack success of the base attacker, of the trained one (5 points more), over-refusal, deflection, seconds.
    assert cells(lines, "bound 4, seed 1") == ["20.0", "25.0", "20.0", "50.0", "200"]
    # By hand: mean 20, sd 10, t(2) = 4.303: 10 / sqrt(3) * 4.303 = 24.8.
    assert cells(lines, "bound 4, mean")[0] == "20.0 [-4.8, 44.8]"
    # Differences 2, 2, 5: mean 3, sd 1.732, half-width 4.303.
    assert cells(lines, "synchronous minus bound 4")[0] == "3.0 [-1.3, 7.3]"
    assert cells(lines, "synchronous minus bound 4")[-1] == "200 [200, 200]"
    assert "- Commit abc: a machine, 2 cores; vllm 0.32.0." in lines


def test_a_run_that_did_not_finish_is_in_no_mean_and_named() -> None:
    lines = report(
        [
            run("bound-4", 0, 0.1, 200.0),
            run("bound-4", 1, 0.9, 900.0, status="failed", note="out of memory"),
            run("synchronous", 0, 0.2, 300.0),
            run("synchronous", 1, 0.4, 300.0),
        ]
    )
    assert cells(lines, "bound 4, mean")[0] == "10.0 (one seed)"
    assert cells(lines, "synchronous minus bound 4")[0] == "10.0 (one seed)"
    assert lines[-1] == "- Left out: bound 4, seed 1: failed: out of memory."
    assert not any(line.startswith("| bound 4, seed 1") for line in lines)


def test_with_nothing_finished_there_are_dashes() -> None:
    lines = report([run("bound-4", 0, 0.1, 1.0, status="failed", note="x")])
    assert cells(lines, "synchronous minus bound 4") == ["-"] * 5


@pytest.mark.parametrize("recipes", ["nowhere"])
def test_a_missing_folder_of_recipes_is_a_mistake_in_the_input(recipes: str, tmp_path: Path) -> None:
    from tests.benchmarks.synchronous import main

    assert main(["--recipes", str(tmp_path / recipes), "--runs", str(tmp_path)]) == 2
