"""lm-eval is called, not rewritten: its command line, its results, and how it fails. It is a fake here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.measure.suites.utility import Utility, check_utility, make_command, make_utility, run_utility
from protocol.errors import UserError

ASKED = Utility("piqa,arc_easy", "hf", 5, 60.0)


def fake(status: int = 0, results: Any = None, calls: list[list[str]] | None = None) -> Any:
    """lm-eval as `subprocess.run` sees it: it leaves its results where it does, below a folder named for the model."""

    def run(command: list[str], stdout: Any, stderr: Any, timeout: float) -> "subprocess.CompletedProcess[bytes]":
        if calls is not None:
            calls.append(command)
        stdout.write(b"said something")
        if results is not None:
            folder = Path(command[command.index("--output_path") + 1]) / "model"
            folder.mkdir()
            (folder / "results_2026-11-27T00-00-00.json").write_text(json.dumps({"results": results, "versions": {}}))
        return subprocess.CompletedProcess(command, status)

    return run


def test_its_command_line() -> None:
    command = make_command(ASKED, Path("/models/x"), Path("/out"))
    assert command == [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", "pretrained=/models/x,dtype=auto"),
        *("--tasks", "piqa,arc_easy", "--apply_chat_template", "--output_path", "/out", "--limit", "5"),
    ]


def test_its_results_are_kept_and_it_is_not_run_again(tmp_path: Path) -> None:
    calls: list[list[str]] = []
    results = {"piqa": {"acc,none": 0.5}}
    assert run_utility(ASKED, "m", Path("/x"), tmp_path, fake(results=results, calls=calls)) == results
    assert run_utility(ASKED, "m", Path("/x"), tmp_path, fake(calls=calls)) == results
    assert len(calls) == 1 and (tmp_path / "utility" / "m.log").read_text() == "said something"
    other = Utility("piqa", "hf", 5, 60.0)
    with pytest.raises(UserError, match="ended with status 0 on m, without results"):
        run_utility(other, "m", Path("/x"), tmp_path, fake(calls=calls))
    assert len(calls) == 2


def test_its_failures_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lm_eval ended with status 3 on m, without results; .*m.log says why"):
        run_utility(ASKED, "m", Path("/x"), tmp_path, fake(3))

    def late(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("lm_eval", 60.0)

    with pytest.raises(UserError, match="lm_eval took longer than 60 s on m"):
        run_utility(ASKED, "m", Path("/x"), tmp_path, late)


def test_it_is_refused_where_it_is_missing_or_the_backend_is_none() -> None:
    with pytest.raises(UserError, match=r"--utility: .* lm_eval is not installed here; pip install .\.\[lm_eval\].,"):
        check_utility(lambda name: None)
    check_utility(lambda name: object())
    with pytest.raises(UserError, match="--utility-backend: gguf is none of hf, vllm"):
        make_utility("piqa", "gguf", None, 1.0)
