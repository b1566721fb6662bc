"""Making and locking a run's directory. Its names are `cluster.rundir`'s; finding one is `inputs.run_dir`'s."""

import contextlib
from collections.abc import Collection, Iterator, Mapping

from cluster.inputs.copies import copy_files
from cluster.inputs.run_dir import check_free
from cluster.plan.plan import Plan
from cluster.rundir import RunDir
from protocol.errors import UserError
from protocol.files import make_folder, write_file
from protocol.locks import try_lock
from protocol.roles import PLAYERS, Player


def make_run(plan: Plan) -> None:
    """Makes the directory with the resolved recipe in it; all of it appears at once.

    Raises:
        UserError: the name is taken, or the place cannot be written.
    """
    path = plan.run_dir.path
    check_free(plan.run_dir)
    try:
        with make_folder(path) as draft:
            new = RunDir(draft)
            new.logs.mkdir()
            new.replay.mkdir()
            (draft / "checkpoints").mkdir()
            copy_files(plan.files, new.inputs)
            write_file(new.recipe, plan.recipe_yaml)
            write_file(new.quarantine, plan.inputs.quarantine_jsonl())
    except OSError as e:
        raise UserError(
            f"run.dir: {path.parent} cannot be written ({e.strerror}); set run.dir to a place that can"
        ) from None


@contextlib.contextmanager
def lock_run(run_dir: RunDir) -> Iterator[None]:
    """Keeps a second driver out of the run for as long as this one lives.

    Raises:
        UserError: another driver has it, or its file system has no locks.
    """
    with run_dir.lock.open("w") as f:
        if not try_lock(f.fileno(), run_dir.lock):
            raise UserError(
                f"--resume: {run_dir.path} is being run by another driver; wait for its end, or interrupt it"
            )
        yield


def pushes_first(run_dir: RunDir, versions: Mapping[Player, int], warm: Collection[Player]) -> set[Player]:
    """The players whose learners push before the first game: after a warm start, and where a run is resumed.

    One that stopped before its first version, with no checkpoint either, starts at version 0 again and pushes nothing.

    Args:
        versions: the highest version that the replay buffer saw of each player.
        warm: the players with a warm start.
    """
    resumed = {p for p in PLAYERS if versions.get(p, 0) > 0 or any(run_dir.checkpoints(p).glob("step-*[0-9]"))}
    return resumed | set(warm)
