"""The stacks of a run's processes, had from outside: also of one whose event loop, or whose GIL, hangs.

Each process registers itself in the run directory (`processes/ROLE.json`) and has faulthandler write all its threads' stacks into
a file in memory when it gets `SIGNAL`: that needs neither its event loop nor its GIL, and no rights but its own user's. py-spy sees
more (the engines' child processes, too) and needs the right to trace, which root has and a container may lack. Both are taken, and
what did not work is said. Local variables are never read: they hold texts.

Works on the node where it is called. Which nodes are asked, and until when, is `cluster.run.stall`'s.
"""

import contextlib
import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import structlog

from protocol.files import write_json

SIGNAL = signal.SIGUSR2  # neither Ray's, vLLM's nor DeepSpeed's
PY_SPY_S, SIGNAL_S, GPU_S = 8.0, 2.0, 5.0
AT_ONCE = 8  # processes that are looked at together
QUERY = "timestamp,index,name,utilization.gpu,memory.used,memory.total,power.draw"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a run, as it registered itself.

    Attributes:
        role: as its log is called.
        started: ticks of the kernel's clock from the node's boot to its start; with the pid it names one process, of all that ever
            have that number. No Unix time: that of a start moves with every step of the node's clock.
        node_id, node: Ray's id of its node, and the address.
        fd: in that process, where faulthandler writes.
        children: whether the processes that it started are parts of it (an engine's), and are dumped with it.
    """

    role: str
    pid: int
    started: int
    node_id: str
    node: str
    fd: int
    children: bool = True

    def is_there(self) -> bool:
        """Whether it still runs; on its own node."""
        return read_start(self.pid) == self.started


def read_start(pid: int) -> int | None:
    """When a process of this node started, as `Process.started`; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return int(
            stat.rpartition(b")")[2].split()[19]
        )  # field 22, counted behind the name, which may hold anything: proc(5)
    except (OSError, ValueError, IndexError):
        return None


def register_process(folder: Path, role: str, node_id: str, node: str, children: bool = True) -> Process:
    """From now on this process's stacks can be had. It replaces one that had the role before.

    Args:
        folder: `RunDir.processes`.
    """
    fd = os.memfd_create(f"stacks of {role}")
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)
    pid = os.getpid()
    process = Process(role, pid, read_start(pid) or 0, node_id, node, fd, children)
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{role}.json", asdict(process))
    return process


def list_processes(folder: Path) -> list[Process]:
    """The processes that registered, by role. A file that cannot be read is left out and told."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            found.append(Process(**json.loads(file.read_text())))
        except (OSError, ValueError, TypeError) as error:
            log.warning("a process's entry cannot be read", file=file.name, error=type(error).__name__)
    return found


def dump_here(processes: Sequence[Process], limit_s: float) -> dict[str, str]:
    """The stacks of processes on this node, by role. What is not there in time is said instead."""
    deadline = time.monotonic() + limit_s
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="stacks")
    asked = {process.role: pool.submit(dump_process, process, limit_s) for process in processes}
    said: dict[str, str] = {}
    for role, text in asked.items():
        try:
            said[role] = text.result(max(0.0, deadline - time.monotonic()))
        except NotInTime:
            said[role] = f"no stacks within {limit_s:.0f} s\n"
    pool.shutdown(wait=False, cancel_futures=True)
    return said


def dump_process(process: Process, limit_s: float) -> str:
    """All threads of one process, and of its child processes."""
    if not process.is_there():
        return f"process {process.pid} is gone\n"
    parts = [f"== threads of {process.pid}, by faulthandler ==", read_faulthandler(process, min(SIGNAL_S, limit_s))]
    for pid in (process.pid, *(_python_children(process.pid) if process.children else ())):
        parts += [f"== threads of {pid}, by py-spy ==", run_py_spy(pid, min(PY_SPY_S, limit_s))]
    return "\n".join(parts) + "\n"


def _python_children(pid: int) -> list[int]:
    """The Python processes below one. Others (compilers, for example) have no Python stack."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    python = []
    for child in below:
        with contextlib.suppress(psutil.Error):
            if "python" in child.exe():
                python.append(child.pid)
    return python


def read_faulthandler(process: Process, limit_s: float) -> str:
    """Sends the signal and reads what faulthandler writes; or says why there is nothing."""
    try:
        with open(f"/proc/{process.pid}/fd/{process.fd}", "rb") as file:  # noqa: PTH123  # a link that only the kernel follows
            before = file.seek(0, os.SEEK_END)
            os.kill(process.pid, SIGNAL)
            deadline, size = time.monotonic() + limit_s, before
            while time.monotonic() < deadline:
                time.sleep(0.1)
                newest = file.seek(0, os.SEEK_END)
                if newest == size > before:
                    break
                size = newest
            file.seek(before)
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"nothing: {type(error).__name__} {error.strerror}"
    return text or f"nothing within {limit_s:.0f} s: it is stopped, or in a call that the kernel does not interrupt"


def find_py_spy() -> str | None:
    """py-spy beside this interpreter, or on the PATH."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


def run_py_spy(pid: int, limit_s: float) -> str:
    """`py-spy dump`, or why it gave nothing."""
    tool = find_py_spy()
    if tool is None:
        return "nothing: py-spy is not installed on this node"
    return _run([tool, "dump", "--pid", str(pid)], limit_s, "py-spy may trace only as root, or with CAP_SYS_PTRACE")


def describe_gpus(limit_s: float = GPU_S) -> str:
    """What this node's GPUs do and who is on them, or that there are none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none: this node has no nvidia-smi\n"
    use = _run([tool, f"--query-gpu={QUERY}", "--format=csv"], limit_s, "")
    who = _run([tool, "--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv"], limit_s, "")
    return f"{use}\n\n{who}\n"


def _run(command: list[str], limit_s: float, hint: str) -> str:
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"nothing: {name} took more than {limit_s:.0f} s"
    except OSError as error:
        return f"nothing: {name} did not start ({error.strerror})"
    if done.returncode == 0:
        return done.stdout.rstrip()
    why = (done.stderr.strip().splitlines() or ["no reason given"])[0]
    return f"nothing: {name} ended with {done.returncode} ({why})" + (f"; {hint}" if hint else "")
