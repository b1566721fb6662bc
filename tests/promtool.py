"""Evaluates PromQL with Prometheus' own `promtool`, as many expressions at once as one wants.

`promtool test rules` is asked for an answer that no expression has, and says of each what it got instead. Tests that need it are
skipped in words where it is not installed.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROMTOOL = shutil.which("promtool")
STEP_S, SAMPLES = 10, 61  # of seeded series: ten minutes
AT = f"{STEP_S * (SAMPLES - 1)}s"  # when expressions are evaluated
TIMEOUT_S = 120.0

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: apt-get install --no-install-recommends prometheus"
)


@dataclass(frozen=True)
class Seed:
    """One series: it begins at `start` and gains `slope` with every sample."""

    name: str
    labels: tuple[tuple[str, str], ...]
    start: float
    slope: float = 0.0

    def as_input(self) -> dict[str, str]:
        """As promtool takes it."""
        labels = ",".join(f'{key}="{value}"' for key, value in self.labels)
        return {
            "series": f"{self.name}{{{labels}}}",
            "values": f"{self.start:.6g}{self.slope:+.6g}x{SAMPLES - 1}",
        }


Answer = Mapping[str, float]  # value by series, which is written as promtool does; NaN is kept as the text of it
World = tuple[Seed, ...]


class BadQuery(Exception):
    """An expression that cannot be parsed or evaluated; the text says why."""


def evaluate(worlds: Iterable[World], exprs: Iterable[str], folder: Path) -> list[dict[str, Answer | BadQuery]]:
    """What each expression gives at `AT`, in each world."""
    worlds, asked = list(worlds), sorted(set(exprs))
    never = [{"labels": "never{}", "value": 0}]
    checks = [{"expr": expr, "eval_time": AT, "exp_samples": never} for expr in asked]
    answers = []
    for k, world in enumerate(worlds):  # a file each: promtool stops at the first group that it cannot load
        group = {
            "interval": f"{STEP_S}s",
            "input_series": [seed.as_input() for seed in world],
            "promql_expr_test": checks,
        }
        file = folder / f"world-{k}.yml"
        file.write_text(json.dumps({"evaluation_interval": f"{STEP_S}s", "tests": [group]}))  # JSON is YAML
        answers.append(_read(_run("test", "rules", str(file)), asked))
    return answers


def check_rules(exprs: Iterable[str], folder: Path) -> str:
    """`promtool check rules` on recording rules of these expressions: its complaint, empty where it has none."""
    rules = [{"record": f"panel:{k}", "expr": expr} for k, expr in enumerate(exprs)]
    file = folder / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    ended = _run("check", "rules", str(file))
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr


def _run(*args: str) -> "subprocess.CompletedProcess[str]":
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *args], capture_output=True, text=True, timeout=TIMEOUT_S)


def _read(ended: "subprocess.CompletedProcess[str]", asked: list[str]) -> dict[str, Answer | BadQuery]:
    found: dict[str, Answer | BadQuery] = {}
    told = ended.stdout + ended.stderr
    for quoted, rest in re.findall(r'^ +expr: ("(?:[^"\\]|\\.)*"), time: \w+,(.*(?:\n +(?:exp|got):.*)*)', told, re.M):
        error = re.search(r"^ err: (.*)", rest)
        found[json.loads(quoted)] = BadQuery(error[1]) if error else _parse(rest.split("got: ", 1)[1])
    missing = [expr for expr in asked if expr not in found]
    assert not missing, f"promtool said nothing of {missing[:2]}: {told[:1000]}"
    return found


def _parse(got: str) -> dict[str, Any]:
    """`{a="b"} 1E+00, {} NaN`. Nine digits count: the order of a sum is not fixed."""
    samples = re.findall(r'((?:\w+)?\{(?:\w+="(?:[^"\\]|\\.)*"(?:, )?)*\}) (\S+?)(?:, |$)', got)
    return {series: "NaN" if value == "NaN" else float(f"{float(value):.9g}") for series, value in samples}
