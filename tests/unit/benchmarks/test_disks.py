"""The slow file system of the benchmarks is slow, and only where it is asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.disks import slow_environment
from tests.paths import ROOT

ASK = "import sys; from pathlib import Path; from tests.benchmarks.disks import fsync_ms; print(fsync_ms(Path(sys.argv[1])))"


def asked(folder: Path, environment: dict[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folder)],
        cwd=ROOT,
        env=dict(os.environ) | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return float(done.stdout)


def test_every_fsync_takes_so_many_milliseconds_more(tmp_path: Path) -> None:
    environment = slow_environment(tmp_path, ms=40)
    if environment is None:
        pytest.skip("no C compiler")
    plain = asked(tmp_path, {})
    assert 40 <= asked(tmp_path, environment) < plain + 60


def test_without_a_compiler_there_is_no_slow_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slow_environment(tmp_path) is None
