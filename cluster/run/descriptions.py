"""What Ray's dashboard says of a run's parts and of the run itself. Pure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cluster.plan.placement import PUBLISHER, REPLAY, generation_role, judge_role, rollout_role
from cluster.plan.plan import Plan
from protocol.roles import PLAYERS


def describe_parts(plan: Plan) -> dict[str, str]:
    """What each actor serves, by role: its player and model, its judge, its share of the games."""
    learn = " and ".join(plan.learners)
    g, judge = plan.generation, plan.judge
    return {
        REPLAY: f"games and rows for {learn}",
        PUBLISHER: f"new versions of {learn}",
        **{
            generation_role(player, k): f"{player}, serves {Path(plan.inputs.models[player]).name}"
            for player in PLAYERS
            for k in range(g.workers)
        },
        **{judge_role(k): f"judge, serves {judge.judge_id}" for k in range(judge.config.workers)},
        **{rollout_role(k): f"plays {share} games at once" for k, share in enumerate(plan.shares)},
    }


JOB_NAME: Final = "job_name"  # as Ray calls it


def describe_job(plan: Plan) -> Mapping[str, str]:
    """The metadata of the run's job. Ray takes texts only. What `ray job submit` was given comes first."""
    return {
        JOB_NAME: f"advgame {plan.name}",
        "run": plan.name,
        "run_dir": str(plan.run_dir.path),
        "steps": str(plan.steps),
        "trains": " and ".join(plan.learners),
        "judge": plan.judge.judge_id,
        "resumed": str(plan.resumed).lower(),
    }
