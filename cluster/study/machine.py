"""The origin of figures: the commit and the machine, in words."""

import os
import platform
import subprocess
from pathlib import Path

import psutil

GIT_DEADLINE_S = 10.0


def describe_commit(checkout: Path) -> str:
    """The checkout's commit, with "+changes" where tracked files differ from it; "unknown" without git."""
    try:
        head = _git(checkout, "rev-parse", "--short=12", "HEAD")
        changed = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head}+changes" if changed else head


def _git(checkout: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", *args], cwd=checkout, capture_output=True, text=True, check=True, timeout=GIT_DEADLINE_S
    )
    return done.stdout.strip()


def describe_machine() -> str:
    """Processor, cores and memory."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
