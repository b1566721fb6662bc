"""A plan for people (`python -m cluster plan`) and for programs (`plan.json`). Pure."""

from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.plan.plan import Plan
from cluster.plan.seed_set import SeedSet


def plan_json(plan: Plan) -> dict[str, Any]:
    """What was decided, as JSON: the paths and counts of the inputs, never their texts."""
    inputs, admission = plan.inputs, plan.replay.admission
    return {
        "run": plan.name,
        "run_dir": str(plan.run_dir.path),
        "seed": plan.seed,
        "steps": plan.steps,
        "inputs": {
            "models": dict(inputs.models),
            "judge_model": inputs.judge_model,
            "seeds": {"train": len(inputs.train), "heldout": len(inputs.heldout), "quarantined": inputs.quarantined},
            "seed_sets": {"train": asdict(SeedSet.of(inputs.train)), "heldout": asdict(SeedSet.of(inputs.heldout))},
            "probe_labels": len(inputs.probe),
        },
        "demand": asdict(plan.demand),
        "bundles": [asdict(bundle) for bundle in plan.placement.bundles],
        "learners": {
            player: {
                "ranks": spec.config.ranks,
                "cpus_per_rank": spec.config.cpus_per_rank,
                "gpus_per_rank": spec.config.gpus_per_rank,
                "transport": plan.transports[player],
                "push_dtype": spec.push_dtype,
                "settle_every": spec.settle_every,
                "warm_steps": spec.config.sft.warm_steps,
            }
            for player, spec in plan.learners.items()
        },
        "push_periods": list(plan.push_periods),
        "admission": {
            "max_staleness": admission.max_staleness,
            "oldest_replica": admission.oldest_replica,
            "batch_games": {p: admission.batch_games[p] for p in plan.trained},
        },
        "games": {
            "in_flight": plan.rules.game.in_flight,
            "first_limit": plan.replay.first_limit if plan.replay.backpressure is not None else None,
            "limit_s": plan.replay.game_limit_s,
        },
        "sinks": list(plan.sinks.config.named),
        "judge": {"id": plan.judge.judge_id, "workers": plan.judge.config.workers},
    }


def draw_plan(plan: Plan) -> RenderableType:
    """The plan as tables: where each part goes, what the learners do, and the numbers that bound the games."""
    return Group(_parts(plan), _learners(plan), Text("\n".join(_numbers(plan))))


def _parts(plan: Plan) -> Table:
    table = Table(title=f"Plan of {plan.name}")
    for column in ("part", "bundle", "CPUs", "GPUs"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for bundle in plan.placement.bundles:
        index = plan.placement.index_of(bundle.role)
        table.add_row(bundle.role, str(index), f"{bundle.cpus:g}", f"{bundle.gpus:g}")
    for player, spec in plan.learners.items():
        for rank in range(spec.config.ranks):
            cpus, gpus = spec.config.cpus_per_rank, spec.config.gpus_per_rank
            table.add_row(f"learner-{player}-{rank}", "Ray Train", f"{cpus:g}", f"{gpus:g}")
    return table


def _learners(plan: Plan) -> Table:
    table = Table(title="Learners")
    for column in ("player", "model", "loss", "games a step", "transport", "push dtype", "waits for its push"):
        table.add_column(column, justify="right" if column == "games a step" else "left")
    for player, model in plan.inputs.models.items():
        spec = plan.learners.get(player)
        if spec is None:
            table.add_row(player, model, "frozen", "-", "-", "-", "-")
            continue
        waits = f"every {spec.settle_every} steps" if spec.settle_every else "never"
        warm = f", {spec.config.sft.warm_steps} warm steps" if spec.config.sft.warm_steps else ""
        loss, games = spec.config.loss, str(spec.config.batch_games)
        table.add_row(player, model, f"{loss}{warm}", games, plan.transports[player], spec.push_dtype, waits)
    return table


def _numbers(plan: Plan) -> list[str]:
    inputs, admission, game, demand = plan.inputs, plan.replay.admission, plan.rules.game, plan.demand
    first = plan.replay.first_limit if plan.replay.backpressure is not None else None
    begins = "" if first is None else f", {first} at first"
    return [
        f"needs at once: {demand.cpus:g} CPUs, {demand.gpus:g} GPUs, about {demand.memory_gib:g} GiB of memory",
        f"seeds: {len(inputs.train)} to train on, {len(inputs.heldout)} held out, {inputs.quarantined} lines quarantined",
        f"games: {game.attacks} attacks, {game.responses} responses each; {game.in_flight} at once{begins}",
        f"staleness: at most {admission.max_staleness} versions, of which replicas take {admission.oldest_replica}",
        f"judge: {plan.judge.judge_id}, {plan.judge.config.workers} workers",
        f"run directory: {plan.run_dir.path}",
    ]
