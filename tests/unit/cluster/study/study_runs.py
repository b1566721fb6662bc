"""Recorded runs for the study's tests: summaries as `train` writes them, with the held-out fractions that a test wants."""

from typing import Any

from cluster.study.figures import Faced, RunFigures, Study, figures_of

STEPS = {"attacker": 40, "defender": 40}
ORIGIN = {"attempts": 1, "commits": ["abc"], "machine": "a machine, 2 cores"}


def measured(success: float, compliance: float) -> dict[str, float | None]:
    return {
        "attack_success": success,
        "over_refusal": 1 - compliance,
        "benign_compliance": compliance,
        "deflection": 0.5,
        "n": 280,
        "n_harmful": 140,
        "n_benign": 140,
        "unwrapped": 0,
        "unjudged": 0,
    }


def summary(success: float = 0.1, compliance: float = 0.8, **more: Any) -> dict[str, Any]:
    """A finished run's, as far as the study reads it."""
    return {
        "status": "finished",
        "note": "",
        "wall_s_total": 170.0,
        "steps": STEPS,
        "games": {"finished": 1900, "started": 2000},
        "heldout": {
            "start": measured(0.7, 0.68),
            "end": measured(success, compliance),
            "end_trained_attacker": measured(success + 0.05, compliance),
            "points": [],
            "skipped": {"near_end": 1},
        },
        "versions": {"vllm": "0.32.0"},
        **more,
    }


def run(variant: str, seed: int, success: float, compliance: float = 0.8, **more: Any) -> RunFigures:
    return figures_of(variant, seed, STEPS, summary(success, compliance, **more), ORIGIN)


def study(by_variant: dict[str, list[tuple[float, float]]], faced: tuple[Faced, ...] = ()) -> Study:
    """One run for each (attack success, benign compliance), seeds from 1."""
    runs = [run(v, seed, *pair) for v, pairs in by_variant.items() for seed, pair in enumerate(pairs, 1)]
    return Study(
        40,
        {"replay.max_staleness": "4", "learners.defender.ema_decay": "0.95"},
        {v: {} for v in by_variant},
        tuple(runs),
        faced,
    )
