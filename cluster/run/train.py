"""`train`: from a recipe file to an exit status. Everything is checked before anything is started or written."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from cluster.exits import INTERRUPTED
from cluster.inputs.find import find_inputs
from cluster.inputs.recipe_file import load_recipe, with_absolute_paths
from cluster.observe.logs import configure_logs
from cluster.observe.progress import Progress
from cluster.plan.demand import check_room, demand_of
from cluster.plan.transports import transports_of
from cluster.replay.rules.admission import AdmissionRule
from cluster.run.folder import check_free, find_run, lock_run, make_run, name_run
from cluster.run.session import Interrupted, Session, interrupts, ray_session
from cluster.run.states import RunEnd, RunFailed
from cluster.run.summary import heldout_table, run_table
from cluster.rundir import RunDir
from protocol.errors import UserError, trail
from protocol.recipe import Recipe

if TYPE_CHECKING:
    from cluster.run.driver import Run

log = structlog.get_logger(__name__)


def train_run(recipe_file: Path | None, overrides: Sequence[str], resume: Path | None, started_at: float) -> int:
    """Runs `train` and gives its exit status.

    Args:
        recipe_file: the recipe; None with `resume`.
        overrides: `key=value` texts.
        resume: a run directory to go on with.
        started_at: when the process started, Unix seconds; `wall_s` counts from there.

    Raises:
        UserError: before anything was written.
    """
    if (recipe_file is None) == (resume is None):
        raise UserError("train: give either a recipe file or --resume RUN")
    if resume is not None and overrides:
        raise UserError("--set: a resumed run keeps its recipe; start a new run to change it")
    if resume is not None:
        run_dir: RunDir | None = find_run(resume)
        recipe = load_recipe(find_run(resume).recipe)
    else:
        assert recipe_file is not None
        run_dir = None
        recipe = name_run(load_recipe(recipe_file, overrides), recipe_file)
        check_free(recipe)
    AdmissionRule.from_recipe(recipe)  # refuses what would deadlock
    transports_of(recipe)  # refuses a transport that cannot work
    with interrupts():
        try:
            return _run(recipe, run_dir, started_at)
        except Interrupted as e:
            Progress().say(f"interrupted ({e})")
            return INTERRUPTED


def _free(session: Session) -> tuple[float, float, float]:
    """CPUs, GPUs and memory (GiB) that Ray has to give."""
    import psutil
    import ray

    free = ray.available_resources()
    memory = free.get("memory", 0.0)  # Ray knows of a container's limit, psutil of what others use
    if session.local:
        memory = min(memory, psutil.virtual_memory().available)
    return free.get("CPU", 0.0), free.get("GPU", 0.0), memory / 2**30


def _run(recipe: Recipe, run_dir: RunDir | None, started_at: float) -> int:
    """From here on Ray runs."""
    with contextlib.ExitStack() as stack, Progress() as progress:
        progress.say(f"run {recipe.run.name}, seed {recipe.run.seed}: checking models and seeds")
        inputs = find_inputs(recipe, progress.say, run_dir)
        bad = sum(len(lines) for lines in inputs.quarantine.values())
        kept = f"{len(inputs.train)} seeds to train on, {len(inputs.heldout)} held out"
        progress.say(f"{kept}; {bad} bad seed lines quarantined" if bad else kept)
        with ray_session() as session, interrupts():
            where = "this machine" if session.local else "the cluster"
            demand = demand_of(recipe)
            check_room(demand, *_free(session), where)
            from cluster.run.driver import Run
            from cluster.run.wiring import reserve  # these import every part: seconds that a mistake should not cost

            group = asyncio.run(reserve(demand))

            resumed = run_dir is not None
            run_dir = run_dir or make_run(with_absolute_paths(recipe), inputs.quarantine_jsonl())
            stack.enter_context(lock_run(run_dir))
            configure_logs(run_dir.path, "driver-0")
            progress.say(f"everything lies in {run_dir.path}")
            progress.say(f"dashboard {session.dashboard_url or 'off'}, metrics {session.metrics_url or 'off'}")
            run = Run(recipe, inputs, run_dir, group, progress, started_at, resumed)
            return _drive(run, progress, run_dir)


def _drive(run: "Run", progress: Progress, run_dir: RunDir) -> int:
    """Drives the run to its end, however it ends, and shows what came of it."""
    end, note = RunEnd.FINISHED, ""
    try:
        asyncio.run(run.drive())
    except Interrupted as e:
        end, note = RunEnd.INTERRUPTED, str(e)
    except RunFailed as e:
        end, note = RunEnd.FAILED, str(e)
    except Exception as e:  # noqa: BLE001  # the summary is written whatever went wrong; where goes to the log, not what: it may quote a prompt
        log.error("the driver failed", trail=trail(e))
        end, note = RunEnd.FAILED, f"{type(e).__name__}; logs/driver-0.log says where"
    summary = run.summary(end, note)
    progress.console.print(run_table(summary))
    if summary["heldout"]:
        progress.console.print(heldout_table(summary))
    progress.say(f"{end.word}{': ' + note if note else ''}")
    if end.resumable:
        progress.say(f"logs: {run_dir.logs}; go on with: python -m cluster train --resume {run_dir.path}")
    else:
        folders = [str(run_dir.path / folder) for folder in summary["export"].values() if folder is not None]
        progress.say(f"trained models: {' and '.join(folders)}")
    progress.say(f"summary: {run_dir.summary}")
    return end.exit_status
