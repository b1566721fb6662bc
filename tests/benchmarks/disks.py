"""The disks that durable benchmarks write to: the local one, and the same with some milliseconds more in every fsync.

The second stands for a network file system. It is made by `slow_fsync.c`, a library of two functions that the measured process is
started with (`LD_PRELOAD`): nothing else of the process changes. `fsync_ms` measures what a process really has.
"""

import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("slow_fsync.c")
SLOW_MS = 10


def slow_environment(folder: Path, ms: int = SLOW_MS) -> dict[str, str] | None:
    """The environment variables of a process with slow fsyncs; the library is made in `folder`. None without a C compiler.

    Raises:
        RuntimeError: there is a compiler, and it fails.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "slow_fsync.so"
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if made.returncode:
        raise RuntimeError(f"{SOURCE.name}: {compiler} fails: {made.stderr[-500:]}")
    return {"LD_PRELOAD": str(library), "ADVGAME_FSYNC_MS": str(ms)}


def fsync_ms(folder: Path, times: int = 9) -> float:
    """Median milliseconds of an fsync of a changed file in `folder`, in this process."""
    path, spent = folder / "fsync.probe", []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            spent.append(1e3 * (time.perf_counter() - began))
    path.unlink()
    return statistics.median(spent)
