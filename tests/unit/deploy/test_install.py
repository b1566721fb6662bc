"""`requirements/install.sh` with a Python that only notes what it is asked: what it says meanwhile, and what it leaves behind."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.paths import ROOT

PYTHON = """#!/usr/bin/env bash
if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi
echo "$@" >> asked
case "$*" in *pip*%s*) exit 3;; esac
exit 0
"""


def install(folder: Path, breaks: str = "nothing breaks") -> "subprocess.CompletedProcess[str]":
    shutil.copytree(ROOT / "requirements", folder / "requirements", dirs_exist_ok=True)
    python = folder / "python"
    python.write_text(PYTHON % breaks.replace(" ", "?"))
    python.chmod(0o755)
    return subprocess.run(
        [folder / "requirements" / "install.sh"],
        env={"PYTHON": str(python), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_pin_is_installed_once_and_the_groups_are_counted(tmp_path: Path) -> None:
    ended = install(tmp_path)
    assert ended.returncode == 0, ended.stderr
    wanted = [
        text
        for name in ("cpu.txt", "lock.txt")
        for text in (ROOT / "requirements" / name).read_text().split("\n")
        if text and not text.startswith("#")
    ]
    asked = re.findall(r"[^ ]+==[^ \n]+", (tmp_path / "asked").read_text())
    assert asked == wanted
    told = re.findall(r"^setup: (\d+) of (\d+), after \d+ s: (.+)$", ended.stdout, re.MULTILINE)
    assert [int(n) for n, _, _ in told] == list(range(1, len(told) + 1))
    assert {int(of) for _, of, _ in told} == {len(told)} and told[0][2].startswith("torch==")
    assert "setup: .venv is ready" in ended.stdout
    assert install(tmp_path).stdout == "", "it is there"


def test_an_install_that_fails_leaves_no_half_made_environment(tmp_path: Path) -> None:
    for breaks in ("vllm", "yarl"):
        assert install(tmp_path, breaks).returncode == 3
        assert not (tmp_path / ".venv").exists()
