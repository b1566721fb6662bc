"""What a model is good for otherwise: lm-eval's tasks, run by lm-eval in a process of its own. An optional package.

Its figures are kept as it gives them, in `OUT/utility/NAME.json`; a model whose file is there for the same tasks is not run again.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from protocol.errors import UserError
from protocol.files import write_json

PACKAGE = EXTRA = "lm_eval"  # the module, and the extra in pyproject.toml that brings it
Backend = Literal["hf", "vllm"]


@dataclass(frozen=True, slots=True)
class Utility:
    """What lm-eval is asked.

    Attributes:
        tasks: by its names, with commas between.
        backend: the engine that it loads the model with.
        limit: examples of each task; None: all.
        deadline_s: for one model.
    """

    tasks: str
    backend: Backend = "hf"
    limit: int | None = None
    deadline_s: float = 86_400.0


def check_utility(find: Callable[[str], object | None] = importlib.util.find_spec) -> None:
    """Raises `UserError` if lm-eval is not installed. `find` gives None for a module that is not there."""
    if find(PACKAGE) is None:
        raise UserError(
            f'--utility: the package lm_eval is not installed here; pip install ".[{EXTRA}]", or leave --utility out'
        )


def make_utility(tasks: str, backend: str, limit: int | None, deadline_s: float) -> Utility:
    """From the options. Raises `UserError` for a backend that is neither hf nor vllm."""
    if backend not in get_args(Backend):
        raise UserError(f"--utility-backend: {backend} is none of {', '.join(get_args(Backend))}; pick one of them")
    return Utility(tasks, "vllm" if backend == "vllm" else "hf", limit, deadline_s)


def make_command(utility: Utility, model: Path, output: Path) -> list[str]:
    """The command line of lm-eval on one model folder; its results go below `output`."""
    arguments = f"pretrained={model},dtype=auto"
    command = [sys.executable, "-m", PACKAGE, "run", "--model", utility.backend, "--model_args", arguments]
    command += ["--tasks", utility.tasks, "--apply_chat_template", "--output_path", str(output)]
    return command if utility.limit is None else [*command, "--limit", str(utility.limit)]


def run_utility(
    utility: Utility,
    name: str,
    model: Path,
    out: Path,
    run: Callable[..., "subprocess.CompletedProcess[bytes]"] = subprocess.run,
) -> dict[str, Any]:
    """lm-eval's `results` of one model, by task.

    Args:
        name: of the model; it names the files.
        out: the evaluation's folder.

    Raises:
        UserError: lm-eval failed, was late, or left no results.
    """
    folder = out / "utility"
    kept, log, raw = folder / f"{name}.json", folder / f"{name}.log", folder / f"{name}.lm_eval"
    asked = {"tasks": utility.tasks, "backend": utility.backend, "limit": utility.limit}
    if kept.is_file() and (known := json.loads(kept.read_text(encoding="utf-8")))["asked"] == asked:
        return dict(known["results"])
    raw.mkdir(parents=True, exist_ok=True)
    before = set(raw.rglob("results*.json"))
    try:
        with log.open("wb") as said:
            status = run(
                make_command(utility, model, raw), stdout=said, stderr=subprocess.STDOUT, timeout=utility.deadline_s
            ).returncode
    except subprocess.TimeoutExpired:
        raise UserError(
            f"--utility: lm_eval took longer than {utility.deadline_s:g} s on {name}; see {log}, or set --utility-limit"
        ) from None
    new = sorted(set(raw.rglob("results*.json")) - before, key=lambda file: file.stat().st_mtime)
    if status != 0 or not new:
        raise UserError(f"--utility: lm_eval ended with status {status} on {name}, without results; {log} says why")
    results = json.loads(new[-1].read_text(encoding="utf-8"))["results"]
    write_json(kept, {"asked": asked, "results": results})
    return dict(results)
