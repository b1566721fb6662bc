"""`train`: from what the user names to an exit status. Everything is checked before anything is started or written."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from cluster.exits import FAILED, INTERRUPTED
from cluster.observe.logs import configure_logs
from cluster.observe.progress import Progress
from cluster.plan.plan import Plan
from cluster.plan.shortfall import Free, check_room
from cluster.run.folder import lock_run, make_run
from cluster.run.prepare import plan_new, plan_resumed
from cluster.run.session import Interrupted, Session, interrupts, ray_session
from cluster.run.summary import heldout_table, run_table
from cluster.rundir import RunDir
from protocol.errors import UserError, trail

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
    if resume is not None and overrides:
        raise UserError("--set: a resumed run keeps its recipe; start a new run to change it")
    with interrupts(), Progress() as progress:
        try:
            if recipe_file is not None and resume is None:
                plan = plan_new(recipe_file, overrides, progress.say)
            elif resume is not None and recipe_file is None:
                plan = plan_resumed(resume, progress.say)
            else:
                raise UserError("train: give either a recipe file or --resume RUN")
            return _run(plan, progress, started_at, resumed=resume is not None)
        except Interrupted as e:
            progress.say(f"interrupted ({e})")
            return INTERRUPTED


def _run(plan: Plan, progress: Progress, started_at: float, resumed: bool) -> int:
    """From here on Ray runs."""
    run_dir, inputs = plan.run_dir, plan.inputs
    kept = f"{len(inputs.train)} seeds to train on, {len(inputs.heldout)} held out"
    progress.say(f"{kept}; {inputs.quarantined} bad seed lines quarantined" if inputs.quarantined else kept)
    with contextlib.ExitStack() as stack, ray_session() as session, interrupts():
        check_room(plan.demand, _free(session))
        from cluster.run.driver import Run
        from cluster.run.wiring import reserve  # these import every part: seconds that a mistake should not cost

        group = asyncio.run(reserve(plan))
        if not resumed:
            make_run(plan)
        stack.enter_context(lock_run(run_dir))
        configure_logs(run_dir.path, "driver-0")
        progress.say(f"everything lies in {run_dir.path}")
        progress.say(f"dashboard {session.dashboard_url or 'off'}, metrics {session.metrics_url or 'off'}")
        return _drive(Run(plan, group, progress, started_at, resumed), progress, run_dir)


def _free(session: Session) -> Free:
    """What Ray has to give."""
    import psutil
    import ray

    free = ray.available_resources()
    memory = free.get("memory", 0.0)  # Ray knows of a container's limit, psutil of what others use
    if session.local:
        memory = min(memory, psutil.virtual_memory().available)
    where = "this machine" if session.local else "the cluster"
    return Free(free.get("CPU", 0.0), free.get("GPU", 0.0), memory / 2**30, where)


def _drive(run: Any, progress: Progress, run_dir: RunDir) -> int:
    """Drives the run to its end, however it ends, and shows what came of it."""
    from cluster.run.driver import RunFailed

    status, note, code = "finished", "", 0
    try:
        asyncio.run(run.drive())
    except Interrupted as e:
        status, note, code = "interrupted", str(e), INTERRUPTED
    except RunFailed as e:
        status, note, code = "failed", str(e), FAILED
    except Exception as e:  # noqa: BLE001  # the summary is written whatever went wrong; where goes to the log, not what: it may quote a prompt
        log.error("the driver failed", trail=trail(e))
        status, note, code = "failed", f"{type(e).__name__}; logs/driver-0.log says where", FAILED
    summary = run.summary(status, note)
    progress.console.print(run_table(summary))
    if summary["heldout"]:
        progress.console.print(heldout_table(summary))
    progress.say(f"{status}{': ' + note if note else ''}")
    if status == "finished":
        folders = [str(run_dir.path / folder) for folder in summary["export"].values() if folder is not None]
        progress.say(f"trained models: {' and '.join(folders)}")
    else:
        progress.say(f"logs: {run_dir.logs}; go on with: python -m cluster train --resume {run_dir.path}")
    progress.say(f"summary: {run_dir.summary}")
    return code
