"""From a plan to an exit status: Ray is found or started, the run directory made, the run driven, and its end shown."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import structlog

from cluster.exits import INTERRUPTED, RunEnd
from cluster.observe.kept import Both, Kept
from cluster.observe.process import observe_process
from cluster.observe.progress import Progress
from cluster.plan.drawing import plan_json
from cluster.plan.plan import Plan
from cluster.plan.shortfall import check_room
from cluster.run.card.write import write_cards
from cluster.run.descriptions import describe_job
from cluster.run.earlier import check_earlier
from cluster.run.end_tables import heldout_table, run_table
from cluster.run.folder import lock_run, make_run
from cluster.run.reserve import measure_free, reserve
from cluster.run.session import Interrupted, Session, interrupts, ray_session
from cluster.run.shared import check_shared
from cluster.run.states import RunFailed
from cluster.run.summary import list_exports
from cluster.rundir import RunDir
from learners.storage import checkpoints
from protocol.errors import UserError, trail
from protocol.files import write_file, write_json
from protocol.meter import install, meter
from protocol.roles import PLAYERS

if TYPE_CHECKING:
    from cluster.run.driver import Run

log = structlog.get_logger(__name__)

DRIVER = "driver-0"
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # in the environment of a submitted job
JOB_KILL_S = 3.0  # after `ray job stop`, where RAY_JOB_STOP_WAIT_TIME_S does not say otherwise

Stay = Callable[[], None]
Beside = Callable[[Session, RunDir], AbstractContextManager[Stay]]


@contextlib.contextmanager
def nothing_beside(_session: Session, _run_dir: RunDir) -> Iterator[Stay]:
    """The run is alone, and nothing stays after it."""
    yield lambda: None


def run_plan(plan: Plan, progress: Progress, started_at: float, beside: Beside = nothing_beside) -> int:
    """Runs a plan to its end, however it ends, and gives the exit status. From here on Ray runs.

    Args:
        started_at: when the process started, Unix seconds; `wall_s` counts from there.
        beside: what runs beside the run, from before its parts are built to before Ray ends: the end of Ray's session ends every
            process below this one. It gives a function that returns when the session may end; not called for an interrupted run.

    Raises:
        UserError: the machine or the cluster has no room, the run directory cannot be made, or what an earlier part left
            in it is damaged; nothing was written.
        Interrupted: before there was a run to end.
    """
    check_earlier(plan)
    run_dir, inputs = plan.run_dir, plan.inputs
    seeds = f"{len(inputs.train)} seeds to train on, {len(inputs.heldout)} held out"
    progress.say(f"{seeds}; {inputs.quarantined} bad seed lines quarantined" if inputs.quarantined else seeds)
    with contextlib.ExitStack() as stack, ray_session(progress.wait, describe_job(plan)) as session, interrupts():
        if session.local:  # nobody else is on it: what is short now stays short
            check_room(plan.demand, measure_free(local=True))
        if plan.resumed:  # before anything is waited for: a driver that lives does not go away
            stack.enter_context(lock_run(run_dir))
        from cluster.run.driver import Run
        from cluster.run.wiring import observing  # these import every part: seconds that a mistake should not cost

        with progress.wait("room on the cluster", f"given up after {plan.placement_s:.0f} s (run.placement_s)") as note:
            reserved = asyncio.run(reserve(plan, session.local, note))
        asyncio.run(check_shared(run_dir))
        if not plan.resumed:
            make_run(plan)
            stack.enter_context(lock_run(run_dir))
        if plan.changes:
            write_file(run_dir.recipe, plan.recipe_yaml)  # so that the next part goes on with them
        # A resumed run's may differ from its first part's.
        write_json(run_dir.plan, plan_json(plan) | {"nodes": reserved.places.as_json()})
        # Every process of a local Ray is below the driver: they have their own entries.
        observe_process(observing(plan), DRIVER, children=False)
        kept = Kept()
        install(Both(meter(), kept.of(DRIVER)))
        for role, node in reserved.places.of.items():
            log.info("placed", part=role, on_node=node.address, node_id=node.id)
        if len(reserved.places.nodes) > 1:
            progress.say(f"placed on {len(reserved.places.nodes)} nodes: {reserved.places.describe()}")
        progress.say(f"everything lies in {run_dir.path}")
        asks = f" (its token: {session.token})" if session.token and session.dashboard_url else ""
        progress.say(f"dashboard {session.dashboard_url or 'off'}{asks}, metrics {session.metrics_url or 'off'}")
        for line in tell_damage(run_dir):
            progress.say(line)
        if (short := warn_of_stop(plan.grace_s, os.environ)) is not None:
            progress.say(short)
        with beside(session, run_dir) as stay:
            status = _drive(Run(plan, reserved, progress, started_at, kept), progress, run_dir)
            if status != INTERRUPTED:
                stay()
        return status


def tell_damage(run_dir: RunDir) -> list[str]:
    """A line for each player whose newest checkpoint is damaged, as far as is seen without reading it: its learner sees more."""
    return [f"checkpoints: {told}" for p in PLAYERS if (told := str(checkpoints.find(run_dir.checkpoints(p))))]


def warn_of_stop(grace_s: float, environment: Mapping[str, str]) -> str | None:
    """What to say in a submitted job that `ray job stop` would kill before its learners' checkpoints; None elsewhere."""
    if JOB_CONFIG not in environment:
        return None
    given = environment.get("RAY_JOB_STOP_WAIT_TIME_S", "")
    wait_s = float(given) if given.isdigit() else JOB_KILL_S
    if not grace_s or wait_s > grace_s:
        return None
    return (
        f"`ray job stop` would kill this job after {wait_s:.0f} s, perhaps before its learners' checkpoints (run.grace_s "
        f"{grace_s:g}); submit with --runtime-env deploy/runtime-env.yaml"
    )


def _drive(run: "Run", progress: Progress, run_dir: RunDir) -> int:
    """Drives the run to its end, however it ends, and shows what came of it."""
    end, note, goes_on = RunEnd.FINISHED, "", True
    try:
        asyncio.run(run.drive())
    except Interrupted as e:
        end, note = RunEnd.INTERRUPTED, str(e)
    except RunFailed as e:
        end, note, goes_on = RunEnd.FAILED, str(e), e.steps_left
    except UserError as e:  # a model that the engine refuses, a damaged file: seen only by the part that met it
        end, note = RunEnd.MISTAKEN, str(e)
    except Exception as e:  # noqa: BLE001  # the summary is written whatever went wrong; where goes to the log, not what: it may quote a prompt
        log.error("the driver failed", trail=trail(e))
        end, note = RunEnd.FAILED, f"{type(e).__name__}; logs/{DRIVER}.log says where"
    summary = run.summary(end, note)
    _write_cards(progress, run_dir)
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


def _write_cards(progress: Progress, run_dir: RunDir) -> None:
    """The run has its results whether or not its exported models have their cards."""
    try:
        write_cards(run_dir)
    except (OSError, UserError) as e:
        log.error("model cards not written", trail=trail(e))
        progress.say(f"the model cards were not written ({type(e).__name__}); logs/{DRIVER}.log says where")
