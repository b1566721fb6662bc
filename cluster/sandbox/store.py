"""The store of the sandbox's parts: each is built once, outside the checkout, in a folder named by a digest of its sources.

A part is written to a temporary folder and renamed, so a folder under its final name is whole. Of two processes that need it
at once one builds and the other waits; should the lock fail, both build the same and the first rename wins. It does not know what
is built.
"""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from cluster.waiting import Note
from protocol.errors import UserError
from protocol.files import make_folder
from protocol.locks import NoLocks, try_lock

VERSIONS = ("torch", "transformers", "tokenizers")
LOOK_S = 0.5  # at how far a training is

_log = structlog.get_logger(__name__)


def cache_root() -> Path:
    """`$ADVGAME_CACHE`, or `~/.cache/advgame`."""
    named = os.environ.get("ADVGAME_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "advgame"


def digest(parts: Sequence[str]) -> str:
    """The key of a part: a digest of its sources (`parts`), the libraries that train it, and the kind of processor."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in VERSIONS]
    return hashlib.blake2b("\0".join([*parts, *versions, platform.machine()]).encode(), digest_size=8).hexdigest()


def build_once(root: Path, name: str, build: Callable[[Path], None], deadline_s: float, note: Note) -> Path:
    """The folder `name` in `root`, built now by `build(draft folder)` if it is not there.

    Args:
        deadline_s: how long to wait for another process that builds it.
        note: is told if that is what is waited for.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = root / name
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / f".{name}.lock", deadline_s, note):
            if not folder.is_dir():
                _build_and_rename(folder, build)
    except OSError as e:
        raise UserError(
            f"sandbox cache {root}: cannot be written ({e.strerror or type(e).__name__}); set ADVGAME_CACHE to a writable folder"
        ) from e
    return folder


def _build_and_rename(folder: Path, build: Callable[[Path], None]) -> None:
    started = time.monotonic()
    try:
        with make_folder(folder) as draft:
            build(draft)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first, with the same content
            raise
    _log.info("sandbox part built", folder=str(folder), seconds=round(time.monotonic() - started, 1))


def train_in_processes(
    commands: Mapping[str, Sequence[str]], draft: Path, threads: int, deadline_s: float, note: Note
) -> None:
    """Runs `python -m ...` for each of `commands` side by side, with `threads` each, so that this process never loads torch.

    Args:
        commands: by name, what follows `python -m`.
        draft: takes the logs while they run.
        note: is told how many steps each has done.

    Raises:
        RuntimeError: one failed or was late; the message ends with its last lines.
    """
    checkout = Path(__file__).parents[2]
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(checkout), "TRANSFORMERS_VERBOSITY": "error"}
    jobs: list[tuple[subprocess.Popen[bytes], Path]] = []
    deadline = time.monotonic() + deadline_s
    try:
        for name, command in commands.items():
            log = draft / f".{name}.log"
            with log.open("wb") as out:
                jobs.append(
                    (
                        subprocess.Popen(
                            [sys.executable, "-m", *command], cwd=checkout, env=env, stdout=out, stderr=out
                        ),
                        log,
                    )
                )
        for job, log in jobs:
            while (status := job.poll()) is None:
                if time.monotonic() >= deadline:
                    raise RuntimeError(f"sandbox: pre-training took longer than {deadline_s:g} s")
                note(", ".join(f"{name} {read_step(log)}" for name, (_, log) in zip(commands, jobs, strict=True)))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    job.wait(LOOK_S)
            if status != 0:
                last = log.read_text(errors="replace").strip().splitlines()[-5:]
                raise RuntimeError(f"sandbox: pre-training ended with status {status}: {' / '.join(last)}")
            log.unlink()
    finally:
        for job, _ in jobs:
            if job.poll() is None:
                job.kill()
                job.wait()


def read_step(log: Path) -> str:
    """How far a training is, by the log that it writes (`tiny_qwen.tell_step`), in words."""
    try:
        steps = re.findall(rb"^step (\d+) of (\d+)$", log.read_bytes(), re.MULTILINE)
    except FileNotFoundError:
        return "is done"  # a log is deleted when its training ended well
    return "is starting" if not steps else "step {} of {}".format(*(int(n) for n in steps[-1]))


@contextlib.contextmanager
def _lock(path: Path, deadline_s: float, note: Note) -> Iterator[None]:
    """Holds the file's lock, or goes on without it once the holder must have given up."""
    with path.open("w") as file:
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            try:
                if try_lock(file.fileno(), path):
                    break
            except NoLocks:
                break  # what is built is written whole: two builders cost time and no more
            note("another process builds it")
            time.sleep(0.2)
        yield
