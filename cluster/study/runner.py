"""Runs what is missing of the study, one run after the other, each as `python -m cluster train` in a process of its own.

Invariants
- A finished run is never run again. A run that was made with other settings is refused, never counted.
- A run that failed, or that an earlier study left unfinished, is resumed once; then it is left out, with its reason.
- However the study ends, the run under way ends first: it is interrupted, so that the next study can resume it.

It reads no figures; `figures` does.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from cluster.exits import USER_ERROR, is_resumable
from cluster.inputs.recipe_file import load_recipe, with_absolute_paths
from cluster.inputs.run_dir import run_dir_of
from cluster.rundir import RunDir
from cluster.study.machine import describe_commit, describe_machine
from protocol.errors import UserError
from protocol.files import write_json
from protocol.recipe import Recipe
from protocol.roles import PLAYERS

ORIGIN = "origin.json"  # beside a run's summary.json: attempts, commits, machine
RUN_LIMIT_S = 1200.0  # a run takes 3 minutes on two idle cores
END_S = 120.0  # an interrupted run takes its Ray down within this
ATTEMPTS = 2  # within one study: the run, and one resumption
CHECKOUT = Path(__file__).parents[2]

Action = Literal["keep", "start", "resume"]


@dataclass(frozen=True)
class PlannedRun:
    """One run of the study: its recipe's file, the overrides, and the recipe that these make."""

    variant: str
    seed: int
    recipe_file: Path
    overrides: tuple[str, ...]
    recipe: Recipe

    @property
    def name(self) -> str:
        return str(self.recipe.run.name)

    @property
    def path(self) -> Path:
        return run_dir_of(self.recipe).path

    @property
    def steps(self) -> dict[str, int]:
        """Updates that each player must have taken at the end."""
        return {p: self.recipe.run.steps if p in self.recipe.trained else 0 for p in PLAYERS}


def plan(variants: Sequence[str], seeds: Sequence[int], recipes: Path, runs: Path) -> list[PlannedRun]:
    """All runs, seed by seed, so that a study that is cut short has as many of each variant.

    Raises:
        UserError: a recipe is wrong, or updates differ between variants.
    """
    planned = [_plan_run(variant, seed, recipes / f"{variant}.yaml", runs) for seed in seeds for variant in variants]
    steps = {p.recipe.run.steps for p in planned}
    if len(steps) > 1:
        raise UserError(
            f"{recipes}: run.steps is {sorted(steps)}; variants compare at equal updates, give all the same"
        )
    return planned


def _plan_run(variant: str, seed: int, file: Path, runs: Path) -> PlannedRun:
    overrides = (f"run.seed={seed}", f"run.dir={json.dumps(str(runs))}", f"run.name={variant}-s{seed}")
    return PlannedRun(variant, seed, file, overrides, with_absolute_paths(load_recipe(file, overrides)))


def action_for(run: PlannedRun) -> Action:
    """What to do about a run, by the content of its directory.

    Raises:
        UserError: the directory holds a run with other settings.
    """
    kept = run.path / "recipe.yaml"
    if not kept.is_file():
        return "start"
    if with_absolute_paths(load_recipe(kept)) != run.recipe:
        raise UserError(
            f"{run.path}: made with other settings than {run.recipe_file}; move it away, or give another --runs"
        )
    return "resume" if is_resumable(RunDir(run.path).read_summary().get("status")) else "keep"


def origin_of(run: PlannedRun) -> dict[str, Any]:
    """What the runner recorded about a run; empty if it never ran it."""
    try:
        value: dict[str, Any] = json.loads((run.path / ORIGIN).read_text())
    except (OSError, ValueError):
        return {}
    return value


class Runner:
    """Runs a plan.

    Args:
        say: takes progress, one line a call.
        command: starts the command line; `train` and its arguments are appended.
        limit_s: for one attempt at a run.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        command: Sequence[str] = (sys.executable, "-m", "cluster"),
        limit_s: float = RUN_LIMIT_S,
    ) -> None:
        self._say, self._command, self._limit_s = say, command, limit_s
        self._commit, self._machine = describe_commit(CHECKOUT), describe_machine()

    def run(self, planned: Sequence[PlannedRun]) -> dict[str, str]:
        """Runs what is not finished.

        Returns:
            By name of the run, why it is left out; empty when all finished.

        Raises:
            UserError: a directory holds a run with other settings; nothing was started.
        """
        actions = {run.name: action_for(run) for run in planned}
        todo = [run for run in planned if actions[run.name] != "keep"]
        self._say(f"{len(planned) - len(todo)} of {len(planned)} runs are finished, {len(todo)} to run")
        left_out: dict[str, str] = {}
        started = time.monotonic()
        for k, run in enumerate(todo, 1):
            self._say(f"[{k}/{len(todo)}] {run.name}: {actions[run.name]}")
            reason = self._bring_to_end(run, actions[run.name])
            if reason:
                left_out[run.name] = reason
            left_min = (time.monotonic() - started) / k * (len(todo) - k) / 60
            outcome = reason or describe_run(RunDir(run.path).read_summary())
            self._say(f"[{k}/{len(todo)}] {run.name}: {outcome}; about {left_min:.0f} min left")
        return left_out

    def _bring_to_end(self, run: PlannedRun, action: Action) -> str:
        """Why the run is left out; empty if it finished."""
        reason = ""
        for _ in range(ATTEMPTS):
            status, reason = self._attempt(run, action)
            if not reason or status == USER_ERROR:  # a mistake in the input: trying again changes nothing
                break
            action = action_for(run)  # "start" again if it never came to a directory of its own
        return reason

    def _attempt(self, run: PlannedRun, action: Action) -> tuple[int | None, str]:
        """Exit status (None past the limit) and, unless the run finished, the reason."""
        sets = [word for override in run.overrides for word in ("--set", override)]
        args = ["--resume", str(run.path)] if action == "resume" else [str(run.recipe_file), *sets]
        log = run.path.parent / "logs" / f"{run.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            child = subprocess.Popen(
                [*self._command, "train", *args], stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                status: int | None = child.wait(self._limit_s)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end(child)
                self._note(run)
        if status == 0:
            return 0, ""
        last = _last_line(log)
        return status, f"longer than {self._limit_s:g} s" if status is None else f"exit status {status}: {last}"

    def _note(self, run: PlannedRun) -> None:
        """Adds this attempt to the run's origin."""
        if not run.path.is_dir():
            return
        before = origin_of(run)
        commits = [c for c in before.get("commits", []) if c != self._commit] + [self._commit]
        write_json(
            run.path / ORIGIN,
            {"attempts": before.get("attempts", 0) + 1, "commits": commits, "machine": self._machine},
        )


def describe_run(summary: Mapping[str, Any]) -> str:
    """One line about a finished run."""
    heldout = summary.get("heldout", {})
    parts = [f"{summary.get('status')} in {summary.get('wall_s_total', 0.0):.0f} s"]
    for key in ("attack_success", "benign_compliance"):
        before, after = (heldout.get(occasion, {}).get(key) for occasion in ("start", "end"))
        if before is not None and after is not None:
            parts.append(f"{key.replace('_', ' ')} {before:.2f} -> {after:.2f}")
    return ", ".join(parts)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Interrupts a run that is still going, so that it takes its Ray down; kills it and all its children if it does not end."""
    if child.poll() is not None:
        return
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGINT)
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        child.wait(END_S)
