"""CPU seconds of the processes of a Ray session on this machine, by what they do.

`snapshot` looks at this process and everything below it: Ray's own processes are its children, Ray's workers the raylet's. Two
snapshots give what was spent between them. A process that ended between them is not counted, one that began is counted whole.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import psutil

# What the command lines of Ray's own Python processes have in them.
_SCRIPTS = {
    "dashboard/dashboard.py": "dashboard",
    "dashboard/agent.py": "agents",
    "runtime_env/agent/main.py": "agents",
    "_private/log_monitor.py": "log monitor",
    "autoscaler/_private/monitor.py": "autoscaler",
}
_TITLES = {"ray-dashboard": "dashboard", "ray::DashboardAgent": "agents", "ray::RuntimeEnvAgent": "agents"}
RAY = ("raylet", "gcs_server", "dashboard", "agents", "log monitor", "autoscaler", "idle workers")


@dataclass(frozen=True)
class Used:
    """A process: what it does, and its CPU seconds so far (its own and the system's for it)."""

    role: str
    cpu_s: float


@dataclass(frozen=True)
class Snapshot:
    """All processes at one moment, by pid and time of birth."""

    at_s: float
    used: Mapping[tuple[int, float], Used]


class TreeClock:
    """CPU seconds of a process and all below it, those that ended meanwhile included as far as they were last seen."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._seen: dict[tuple[int, float], float] = {}

    def look(self) -> None:
        """Does little: whoever wants short-lived processes counted calls it often."""
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self._pid)
            for process in [top, *top.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    times = process.cpu_times()
                    self._seen[process.pid, process.create_time()] = times.user + times.system

    def seconds(self) -> float:
        """Up to now."""
        self.look()
        return sum(self._seen.values())


@dataclass(frozen=True)
class Spent:
    """What one process used between two snapshots, in cores: CPU seconds a second."""

    role: str
    cores: float


def snapshot(known: Mapping[int, str]) -> Snapshot:
    """Of this process (`driver`) and all below it. `known` names the actors by pid."""
    me = psutil.Process()
    used = {}
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
            role = known.get(process.pid) or ("driver" if process == me else role_of(process.name(), process.cmdline()))
            used[process.pid, process.create_time()] = Used(role, times.user + times.system)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):  # it ended meanwhile
            continue
    return Snapshot(time.perf_counter(), used)


def role_of(name: str, command: Sequence[str]) -> str:
    """What a process of a Ray session does, by its name and command line.

    `raylet`, `gcs_server`, and so on; an actor by its class; any other by its own name.
    """
    line = " ".join(command)
    program = PurePath(command[0].split()[0]).name if command and command[0].split() else name
    if program in ("raylet", "gcs_server"):
        return program
    for part, role in (*_SCRIPTS.items(), *_TITLES.items()):
        if part in line:
            return role
    if line.startswith("ray::IDLE"):
        return "idle workers"
    if line.startswith("ray::"):
        return line.removeprefix("ray::").split(".")[0].split("(")[0].strip()
    return name


def spent_between(before: Snapshot, after: Snapshot) -> list[Spent]:
    """What each process used, most first."""
    seconds = after.at_s - before.at_s
    spent = [
        Spent(now.role, (now.cpu_s - (before.used[key].cpu_s if key in before.used else 0.0)) / seconds)
        for key, now in after.used.items()
    ]
    return sorted(spent, key=lambda s: -s.cores)


def cores_by_role(spent: Sequence[Spent]) -> dict[str, float]:
    """Cores that each role used in all, most first."""
    total: dict[str, float] = defaultdict(float)
    for one in spent:
        total[one.role] += one.cores
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def limit_of(spent: Sequence[Spent], cores: int, full: float = 0.9) -> str:
    """What the processes wait for: the machine's cores if they use `full` of them, else a process that uses so much of one core.

    Ours are event loops, which cannot use more than one core each.
    """
    total = sum(one.cores for one in spent)
    if total >= full * cores:
        return f"the machine: {total:.2f} of {cores} cores in use"
    if spent and spent[0].cores >= full:
        return f"{spent[0].role}: {spent[0].cores:.2f} of its one core in use"
    return f"no process: {total:.2f} of {cores} cores in use"
