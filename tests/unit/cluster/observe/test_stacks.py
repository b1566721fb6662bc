"""Stacks from outside: of a process that holds its GIL, of one that is gone, and with or without py-spy."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.observe import stacks
from cluster.observe.stacks import Process, dump_here, list_processes, read_faulthandler, run_py_spy
from tests.paths import ROOT

HANGS = """
    import re, sys
    from pathlib import Path
    from cluster.observe.stacks import register_process

    def hold_the_gil():
        print("up", flush=True)
        re.match("(a+)+$", "a" * 60 + "b")  # in C, for years

    register_process(Path(sys.argv[1]), "judge-0", "n1", "10.0.0.1")
    hold_the_gil()
"""


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Process]:
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HANGS), str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert program.stdout is not None and program.stdout.readline() == b"up\n"
        (process,) = list_processes(tmp_path)
        yield process
    finally:
        program.kill()
        program.wait(10)


def test_faulthandler_tells_where_a_process_is_that_holds_its_gil(hung: Process) -> None:
    text = read_faulthandler(hung, 5.0)
    assert "hold_the_gil" in text
    assert read_faulthandler(hung, 5.0).count("hold_the_gil") == text.count("hold_the_gil"), "the newest dump only"


def test_a_dump_has_both_ways_and_what_did_not_work_is_said(hung: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "find_py_spy", lambda: None)
    said = dump_here([hung], 10.0)["judge-0"]
    assert "by faulthandler ==" in said and "hold_the_gil" in said
    assert "nothing: py-spy is not installed" in said


def test_py_spy_without_the_right_to_trace_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = tmp_path / "py-spy"
    refused.write_text("#!/bin/sh\necho 'Error: Permission Denied' >&2\nexit 1\n")
    refused.chmod(0o755)
    monkeypatch.setattr(stacks, "find_py_spy", lambda: str(refused))
    assert run_py_spy(1, 5.0) == (
        "nothing: py-spy ended with 1 (Error: Permission Denied); py-spy may trace only as root, or with CAP_SYS_PTRACE"
    )


def test_a_tool_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "py-spy"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(stacks, "find_py_spy", lambda: str(slow))
    assert run_py_spy(1, 0.2) == "nothing: py-spy took more than 0 s"


def test_another_process_with_the_same_number_is_not_touched(hung: Process) -> None:
    from dataclasses import replace

    earlier = replace(hung, started=hung.started - 6000)
    assert dump_here([earlier], 5.0) == {"judge-0": f"process {hung.pid} is gone\n"}
    assert hung.is_there(), "no signal was sent, which would end a process that expects none"


def test_a_step_of_the_nodes_clock_makes_no_process_another_one(hung: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts a process's start from boot; its Unix time is told anew after a step, and is another one."""
    now = psutil.Process(hung.pid).create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: now + 3600)
    assert hung.is_there()


def test_a_start_is_read_behind_whatever_a_process_calls_itself(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    shutil.copy("/bin/sleep", program)
    process = subprocess.Popen([str(program), "60"])
    try:
        mine, its = stacks.read_start(os.getpid()), stacks.read_start(process.pid)
        assert mine is not None and its is not None
        took_s = (its - mine) / os.sysconf("SC_CLK_TCK")
        assert took_s == pytest.approx(
            psutil.Process(process.pid).create_time() - psutil.Process().create_time(), abs=0.5
        )
    finally:
        process.kill()
        process.wait(10)
    assert stacks.read_start(process.pid) is None


def test_an_entry_that_cannot_be_read_leaves_the_others(hung: Process, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "older.json").write_text('{"role": "x"}')
    assert list_processes(tmp_path) == [hung]


def test_a_node_without_nvidia_smi_says_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks.shutil, "which", lambda *_, **__: None)
    assert stacks.describe_gpus() == "none: this node has no nvidia-smi\n"
