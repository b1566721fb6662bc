"""`make` with file names as people have them. A program that writes its arguments down stands for Python."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.paths import ROOT

DEADLINE_S = 60.0


@pytest.mark.parametrize("name", ["seeds.jsonl", "my seeds.jsonl", 'the "best" $HOME; seeds.jsonl'])
def test_real_input_takes_seeds_of_any_name(name: str, tmp_path: Path) -> None:
    programs, cache, said = tmp_path / "bin", tmp_path / "a cache", tmp_path / "said"
    programs.mkdir()
    python = programs / "python"
    python.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" END >> '{said}'\n")
    python.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ADVGAME_CACHE": str(cache), "SEEDS": name}
    subprocess.run(
        ["make", "-o", "setup", f"VENV={programs}", "real-input"],
        cwd=ROOT,
        env=environment,
        timeout=DEADLINE_S,
        check=True,
    )
    made, trained, rest = (call.splitlines() for call in said.read_text().split("END\n"))
    model = f"{cache}/random-16m"
    assert made == ["-m", "cluster", "random-model", model, "--texts", name]
    assert trained[2:] == [
        *("train", "deploy/recipes/random-16m.yaml", "--set", f"seeds.train={name}"),
        *("--set", f"models.attacker.path={model}", "--set", f"models.defender.path={model}"),
    ]
    assert rest == []


def test_real_input_on_the_command_line_takes_a_name_with_a_space(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["make", "-n", "-o", "setup", "real-input", "SEEDS=my seeds.jsonl"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert '--set "seeds.train=$SEEDS"' in listed.stdout
