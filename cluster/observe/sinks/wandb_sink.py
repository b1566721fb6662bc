"""Weights & Biases. The key is WANDB_API_KEY, from the environment; offline it writes files in the run directory.

Only what we hand over goes out: no console, no code, no metadata of the machine.
"""

import contextlib
import os
import secrets
import threading
from typing import Any

import psutil
import structlog

from cluster.observe.sinks.sink import Record, RunFacts, find_id, keep_id
from protocol.recipe import WandbConfig
from protocol.roles import PLAYERS

CORE = "wandb-core"  # the name of the process that the package starts beside ours
INIT_S = 30.0  # for opening the run; records wait meanwhile
TEAR_DOWN_S = 2.0  # after its process was killed
FINISH_S = 12.0  # for uploading at the end: within the deadline of all sinks (`sinks.FLUSH_S`)

_log = structlog.get_logger(__name__)


class WandbSink:
    """See `sink.Sink`. A resumed run goes on in the W&B run of its first part."""

    def __init__(self, config: WandbConfig) -> None:
        self._config = config
        self._run: Any = None

    def start(self, run: RunFacts) -> None:
        """Opens the run; each player's numbers are drawn over that player's steps."""
        try:
            self._open(run)
        except BaseException:
            self.abandon()  # its process would stay until the interpreter's end
            raise

    def _open(self, run: RunFacts) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")  # the terminal is the run's
        import wandb

        # Not the run's name: W&B would take another run of that name in the project for the same one.
        earlier = find_id(run)
        id_ = keep_id(run.folder, secrets.token_hex(4)) if earlier is None else earlier
        self._run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            mode=self._config.mode,
            dir=run.folder,
            name=run.name,
            id=id_,
            resume="allow" if earlier is not None and self._config.mode == "online" else None,
            config=dict(run.settings),
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_disable_stats=True,
                x_save_requirements=False,
                init_timeout=INIT_S,
                finish_timeout=FINISH_S,
            ),
        )
        for axis in (*PLAYERS, "run", "heldout"):
            self._run.define_metric(_step(axis), hidden=True)
            self._run.define_metric(f"{axis}/*", step_metric=_step(axis))

    def write(self, record: Record) -> None:
        """One row of the history."""
        self._run.log({**record.values, _step(record.axis): record.step, "time": record.time_s})

    def end(self, status: str) -> None:
        """Uploads what is left, as far as there is time, and ends W&B's own process."""
        code = 0 if status == "finished" else 1
        try:
            self._run.finish(exit_code=code)
        finally:
            _tear_down(code)

    def abandon(self) -> None:
        """Kills W&B's own process, for which the interpreter's end would wait more than a minute."""
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith(CORE):
                    child.kill()
        ending = threading.Thread(target=_tear_down, args=(1,), daemon=True)
        ending.start()
        ending.join(TEAR_DOWN_S)


def _tear_down(code: int) -> None:
    """Ends W&B's own process and takes its hook from the interpreter's end, where it would print a traceback.

    Not on the main thread: W&B ends the program (`sys.exit`) when its process ended with an error, and may wait for a lock.
    """
    import wandb

    try:
        wandb.teardown(exit_code=code)
    except (Exception, SystemExit) as e:  # noqa: BLE001
        _log.warning("W&B's own process ended badly", error=type(e).__name__)


def _step(axis: str) -> str:
    return f"{axis}/step"
