"""Situations for alert rules, and the real promtool over them. What a situation is made of is spelled by the catalogue.

Values are in promtool's notation: "0+30x20 600x40" is 0, 30, ... 600, and 600 forty-one times more; "_" is a missing sample.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from cluster.observe.alerts import ALERTS, RULES
from protocol.metrics import PREFIX, Metric
from tests.paths import ROOT

PROMTOOL = shutil.which("promtool") or ""
MISSING = "promtool is not on the PATH: apt-get install --no-install-recommends prometheus"
RUN, NODE = "paper", "node-1:8080"
UP = f'up{{job="ray",instance="{NODE}"}}'
LIMIT_S = 180  # on a busy machine
ROLES = {"driver": "driver-0", "replay": "replay-0", "publisher": "publisher-0", "judge": "judge-0"}

Kind = Literal["fires", "quiet", "resolves"]
Firing = dict[str, str]  # its labels; `shown` is its value as the texts show it


@dataclass(frozen=True)
class Situation:
    """Series, and at which times the alert fires, with which labels; where it does not it is None. No other alert ever fires.

    Attributes:
        every: between two samples.
        together: names of other alerts that rightly fire in it, too.
    """

    kind: Kind
    series: dict[str, str]
    at: dict[str, Firing | None]
    every: str = "30s"
    together: tuple[str, ...] = field(default=())


def of(metric: Metric, end: str = "", **labels: str) -> str:
    """One series as a scrape of Ray's endpoint gives it, less Ray's own labels."""
    player = labels.get("player", "defender")
    common = {"run": RUN, "role": ROLES.get(metric.part, f"{metric.part}-{player}-0"), "instance": NODE}
    unknown = set(labels) - {*metric.labels, *common, "le"}
    missing = set(metric.labels) - set(labels)
    assert not unknown and not missing, (metric.name, unknown, missing)
    inside = ",".join(f'{label}="{value}"' for label, value in (common | labels).items())
    return f"{PREFIX}{metric.name}{'_' * bool(end)}{end}{{{inside}}}"


def check_situations(name: str, situations: list[Situation], folder: Path) -> str:
    """What promtool has against an alert in these situations; empty if nothing."""
    tests = {
        "rule_files": [str(ROOT / RULES)],
        "evaluation_interval": "30s",
        "tests": [_test(name, situation, place) for place, situation in enumerate(situations)],
    }
    file = folder / f"{name}.test.yml"
    file.write_text(yaml.safe_dump(tests, sort_keys=False))
    done = run_promtool("test", "rules", str(file))
    return "" if done.returncode == 0 else done.stdout + done.stderr


def run_promtool(*args: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """Runs it; `text` is its standard input."""
    return subprocess.run([PROMTOOL, *args], input=text, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def _test(name: str, situation: Situation, place: int) -> dict[str, Any]:
    checks = []
    for time, firing in situation.at.items():
        for alert in ALERTS:
            if alert.name == name:
                checks.append({"eval_time": time, "alertname": name, "exp_alerts": _expect(name, firing)})
            elif alert.name not in situation.together:
                checks.append({"eval_time": time, "alertname": alert.name, "exp_alerts": []})
    return {
        "name": f"{place}: {situation.kind}",
        "interval": situation.every,
        "input_series": [{"series": series, "values": values} for series, values in situation.series.items()],
        "alert_rule_test": checks,
    }


def _expect(name: str, firing: Firing | None) -> list[dict[str, Any]]:
    if firing is None:
        return []
    (alert,) = (alert for alert in ALERTS if alert.name == name)
    labels = {"run": RUN} | {label: value for label, value in firing.items() if label != "shown"}
    return [
        {
            "exp_labels": {"severity": alert.severity} | labels,
            "exp_annotations": {
                "summary": _fill(alert.summary, labels, firing["shown"]),
                "description": _fill(alert.description, labels, firing["shown"]),
                "runbook_url": alert.section(),
            },
        }
    ]


def _fill(text: str, labels: dict[str, str], shown: str) -> str:
    """The text of an alert. A template around the value is replaced by `shown` as far as it is the value."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
    return re.sub(r"\{\{[^}]*\$value[^}]*\}\}", shown, text)
