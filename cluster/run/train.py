"""From a plan to an exit status: Ray is found or started, the run directory made, the run driven, and its end shown."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

import ray
import structlog

from cluster.exits import RunEnd
from cluster.observe.logs import configure_logs
from cluster.observe.progress import Progress
from cluster.plan.drawing import plan_json
from cluster.plan.plan import Plan
from cluster.plan.shortfall import Free, check_room
from cluster.run.folder import lock_run, make_run
from cluster.run.session import Interrupted, Session, interrupts, ray_session
from cluster.run.states import RunFailed
from cluster.run.summary import heldout_table, list_exports, run_table
from cluster.rundir import RunDir
from protocol.errors import trail
from protocol.files import write_json

if TYPE_CHECKING:
    from cluster.run.driver import Run

log = structlog.get_logger(__name__)


def run_plan(plan: Plan, progress: Progress, started_at: float) -> int:
    """Runs a plan to its end, however it ends, and gives the exit status. From here on Ray runs.

    Args:
        started_at: when the process started, Unix seconds; `wall_s` counts from there.

    Raises:
        UserError: the machine or the cluster has no room, or the run directory cannot be made; nothing was written.
        Interrupted: before there was a run to end.
    """
    run_dir, inputs = plan.run_dir, plan.inputs
    kept = f"{len(inputs.train)} seeds to train on, {len(inputs.heldout)} held out"
    progress.say(f"{kept}; {inputs.quarantined} bad seed lines quarantined" if inputs.quarantined else kept)
    with contextlib.ExitStack() as stack, ray_session() as session, interrupts():
        check_room(plan.demand, _free(session))
        from cluster.run.driver import Run
        from cluster.run.wiring import reserve  # these import every part: seconds that a mistake should not cost

        group = asyncio.run(reserve(plan))
        if not plan.resumed:
            make_run(plan)
        stack.enter_context(lock_run(run_dir))
        write_json(run_dir.plan, plan_json(plan))  # a resumed run's may differ from its first part's
        configure_logs(run_dir.path, "driver-0")
        progress.say(f"everything lies in {run_dir.path}")
        progress.say(f"dashboard {session.dashboard_url or 'off'}, metrics {session.metrics_url or 'off'}")
        return _drive(Run(plan, group, progress, started_at), progress, run_dir)


def _free(session: Session) -> Free:
    """What Ray has to give."""
    import psutil

    free = ray.available_resources()
    memory = free.get("memory", 0.0)  # Ray knows of a container's limit, psutil of what others use
    if session.local:
        memory = min(memory, psutil.virtual_memory().available)
    where = "this machine" if session.local else "the cluster"
    return Free(free.get("CPU", 0.0), free.get("GPU", 0.0), memory / 2**30, where)


def _drive(run: "Run", progress: Progress, run_dir: RunDir) -> int:
    """Drives the run to its end, however it ends, and shows what came of it."""
    end, note, goes_on = RunEnd.FINISHED, "", True
    try:
        asyncio.run(run.drive())
    except Interrupted as e:
        end, note = RunEnd.INTERRUPTED, str(e)
    except RunFailed as e:
        end, note, goes_on = RunEnd.FAILED, str(e), e.steps_left
    except Exception as e:  # noqa: BLE001  # the summary is written whatever went wrong; where goes to the log, not what: it may quote a prompt
        log.error("the driver failed", trail=trail(e))
        end, note = RunEnd.FAILED, f"{type(e).__name__}; logs/driver-0.log says where"
    summary = run.summary(end, note)
    progress.console.print(run_table(summary))
    if summary["heldout"]:
        progress.console.print(heldout_table(summary))
    progress.say(f"{end.word}{': ' + summary['note'] if summary['note'] else ''}")
    if end.resumable:
        hint = f"; go on with: python -m cluster train --resume {run_dir.path}" if goes_on else ""
        progress.say(f"logs: {run_dir.logs}{hint}")
    else:
        for line in list_exports(run_dir, summary):
            progress.say(line)
    progress.say(f"summary: {run_dir.summary}")
    return end.exit_status
