"""Every metric of the catalogue is set by code of the part that it names. That a run really has it, the e2e tests see."""

import ast
from pathlib import Path

import pytest

from protocol import metrics
from protocol.metrics import CATALOGUE, Metric

ROOT = Path(__file__).parents[2]
WHERE = {  # where the code of a part is
    "driver": ("cluster/run", "cluster/measure", "cluster/observe", "cluster/supervise"),
    "replay": ("cluster/replay",),
    "publisher": ("cluster/publish",),
    "rollout": ("actors/rollout.py", "cluster/run/pools.py"),
    "generation": ("actors/generation.py",),
    "judge": ("judge",),
    "learner": ("learners",),
}
NAMES = {id(value): name for name, value in vars(metrics).items() if isinstance(value, Metric)}
SETTERS = {"set", "inc", "total", "observe"}


def names_set_in(path: Path) -> set[str]:
    """Constants of the catalogue, written `m.NAME`, that are handed to a meter, or stand in a table of such, in a module."""
    tree = ast.parse(path.read_text())
    spelled = {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "m"
    }
    sets = any(isinstance(n, ast.Attribute) and n.attr in SETTERS for n in ast.walk(tree))
    return spelled if sets else set()


def set_by(part: str) -> set[str]:
    files = [
        f for place in WHERE[part] for f in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    ]
    return set().union(*(names_set_in(f) for f in files if not {"boards", "alerts"} & set(f.relative_to(ROOT).parts)))


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_its_part_sets_it(metric: Metric) -> None:
    assert NAMES[id(metric)] in set_by(metric.part), f"nobody in {WHERE[metric.part]} sets {metric.name}"
