"""`watch RECIPE`: a local run as `train` does it, beside a real Prometheus with the alert rules of the checkout."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import psutil
import typer

from cluster.cli.options import Overrides, RecipeFile
from cluster.exits import INTERRUPTED
from protocol.errors import UserError

if TYPE_CHECKING:
    from cluster.observe.progress import Progress
    from cluster.observe.prometheus import Prometheus
    from cluster.run.session import Session
    from cluster.run.train import Beside, Stay
    from cluster.rundir import RunDir

PORT = 9090  # Prometheus' own
LOOK_S = 1.0


def watch(
    recipe: RecipeFile,
    set_: Overrides = None,
    port: Annotated[int, typer.Option("--port", help="of Prometheus, on this machine only", min=1, max=65535)] = PORT,
    grafana: Annotated[
        str | None, typer.Option("--grafana", help="address of a Grafana, for Ray's Metrics page", metavar="URL")
    ] = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="keep Ray's dashboard and Prometheus after the run, until Ctrl-C")
    ] = False,
) -> None:
    """Plays and learns like `train`, on a Ray of its own, with Prometheus beside it: graphs, and our alerts."""
    from cluster.inputs.request import read_recipe
    from cluster.observe.progress import Progress
    from cluster.observe.prometheus import find_prometheus, tell_ray
    from cluster.plan.plan import make_plan
    from cluster.run.session import Interrupted, interrupts
    from cluster.run.train import run_plan

    if os.environ.get("RAY_ADDRESS", "").strip() not in ("", "local"):
        raise UserError(
            "watch: RAY_ADDRESS is set, and watch starts a Ray of its own; unset it, or use `train` and "
            "deploy/prometheus/prometheus.yml beside the cluster"
        )
    prometheus = find_prometheus(port)
    tell_ray(prometheus, grafana)
    with interrupts(), Progress() as progress:
        try:
            plan = make_plan(read_recipe(recipe, set_ or [], progress.say, progress.wait))
            if not plan.metrics:
                raise UserError(
                    "observe.metrics: false leaves Prometheus without a series of the run; set it to true, or use `train`"
                )
            beside = _beside(prometheus, progress, stay)
            status = run_plan(plan, progress, psutil.Process().create_time(), beside)
        except Interrupted as e:
            progress.say(f"interrupted ({e})")
            status = INTERRUPTED
    raise typer.Exit(status)


def _beside(prometheus: "Prometheus", progress: "Progress", stay: bool) -> "Beside":
    """Prometheus beside a run; the run's addresses are told when it is up."""
    from cluster.observe.prometheus import run_prometheus

    @contextlib.contextmanager
    def beside(session: "Session", run_dir: "RunDir") -> "Iterator[Stay]":
        with run_prometheus(prometheus, session.folder, run_dir.prometheus) as process:
            progress.say(f"Prometheus {prometheus.url}, alerts {prometheus.find_alerts_page()}")
            yield lambda: _stay(process, prometheus, session, progress) if stay else None

    return beside


def _stay(
    process: "subprocess.Popen[bytes]", prometheus: "Prometheus", session: "Session", progress: "Progress"
) -> None:
    """Returns when the user asks for the end, or Prometheus has ended by itself."""
    from cluster.run.session import Interrupted

    progress.say(f"the run has ended; {session.dashboard_url} and {prometheus.url} stay until Ctrl-C")
    try:
        while process.poll() is None:
            time.sleep(LOOK_S)
        progress.say(f"Prometheus has ended by itself, with status {process.returncode}")
    except Interrupted:
        progress.say("ending")
