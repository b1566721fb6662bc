"""Where the sandbox lies: built once, outside the checkout, under a key that is the content of everything it is made from.

A sandbox is written to a temporary folder and renamed, so a folder under its final name is whole. Of two processes that
want it at once one builds and the other waits; should the lock fail, both build the same and the first rename wins.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

import judge.world
from judge.world import heldout_seeds, train_seeds
from protocol.errors import UserError
from protocol.prompts import attacker_messages, defender_messages
from protocol.roles import CATEGORIES, PLAYERS
from protocol.types import Seed

BUILD_DEADLINE_S = 600.0  # it takes 40 s on two idle cores
SOURCES = ("samples.py", "tokenizer.py", "pretrain.py")
VERSIONS = ("torch", "transformers", "tokenizers")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SandboxPaths:
    """A built sandbox: two Hugging Face folders and two seed files (JSONL of `{"prompt", "category"}`)."""

    attacker: Path
    defender: Path
    root: Path

    @property
    def train_seeds(self) -> Path:
        return self.root / "train_seeds.jsonl"

    @property
    def heldout_seeds(self) -> Path:
        return self.root / "heldout_seeds.jsonl"


def cache_root() -> Path:
    """`$ADVGAME_CACHE`, or `~/.cache/advgame`."""
    named = os.environ.get("ADVGAME_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "advgame"


def content_key() -> str:
    """Changes with the world, the base players, the sandbox's prompts, and the libraries that train."""
    here = Path(__file__).parent
    parts = [Path(judge.world.__file__).read_text(), *((here / name).read_text() for name in SOURCES)]
    chats = [attacker_messages(Seed("", "seed", category), "sandbox", "think_prompt") for category in CATEGORIES]
    parts.append(json.dumps([*chats, defender_messages("attack", "sandbox", "plain")]))
    parts += [f"{name} {importlib.metadata.version(name)}" for name in VERSIONS]
    parts.append(platform.machine())
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def _paths(folder: Path) -> SandboxPaths:
    return SandboxPaths(attacker=folder / "attacker", defender=folder / "defender", root=folder)


def ensure_sandbox(root: Path | None = None) -> SandboxPaths:
    """The sandbox's folders, built now if this machine has not built them yet (about 40 s).

    Args:
        root: where sandboxes are cached; `cache_root()` if None.

    Raises:
        UserError: the cache cannot be written.
        RuntimeError: a model could not be pre-trained; the message ends with what its process last said.
    """
    root = cache_root() if root is None else root
    folder = root / f"sandbox-{content_key()}"
    if folder.is_dir():
        return _paths(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / f".{folder.name}.lock"):
            if not folder.is_dir():
                _build_and_rename(root, folder)
    except OSError as e:
        raise UserError(
            f"sandbox cache {root}: cannot be written ({e.strerror or type(e).__name__}); set ADVGAME_CACHE to a writable folder"
        ) from e
    return _paths(folder)


def _build_and_rename(root: Path, folder: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root))
    try:
        started = time.monotonic()
        _log.info("building the sandbox: two tiny models, about 40 s", folder=str(folder))
        _pretrain(draft)
        _write_seeds(draft / "train_seeds.jsonl", train_seeds())
        _write_seeds(draft / "heldout_seeds.jsonl", heldout_seeds())
        for path in draft.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
        _log.info("sandbox built", seconds=round(time.monotonic() - started, 1))
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _pretrain(draft: Path) -> None:
    """Both players at once, each in its own one-thread process: faster on two cores, and this process never loads torch."""
    checkout = Path(__file__).parents[2]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout), "TRANSFORMERS_VERBOSITY": "error"}
    jobs: list[tuple[subprocess.Popen[bytes], Path]] = []
    deadline = time.monotonic() + BUILD_DEADLINE_S
    try:
        for player in PLAYERS:
            log = draft / f".{player}.log"
            command = [sys.executable, "-m", "cluster.sandbox.pretrain", player, str(draft / player)]
            with log.open("wb") as out:
                jobs.append((subprocess.Popen(command, cwd=checkout, env=env, stdout=out, stderr=out), log))
        for job, log in jobs:
            try:
                status = job.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"sandbox: pre-training took longer than {BUILD_DEADLINE_S:g} s") from None
            if status != 0:
                said = log.read_text(errors="replace").strip().splitlines()[-5:]
                raise RuntimeError(f"sandbox: pre-training ended with status {status}: {' / '.join(said)}")
            log.unlink()
    finally:
        for job, _ in jobs:
            if job.poll() is None:
                job.kill()
                job.wait()


def _write_seeds(path: Path, seeds: Sequence[Seed]) -> None:
    lines = [json.dumps({"prompt": seed.text, "category": seed.category}) for seed in seeds]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds the file's lock, or goes on without it once the holder must have given up."""
    with path.open("w") as file:
        deadline = time.monotonic() + BUILD_DEADLINE_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.2)
        yield
