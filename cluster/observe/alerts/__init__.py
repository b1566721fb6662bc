"""Alerts, made from the catalogue: `python -m cluster.observe.alerts` writes `deploy/prometheus/rules/advgame.rules.yml`.

Pure. Each alert has a section in `docs/runbook.md`, and three situations in its test: it fires, it does not fire, it resolves.
"""

import yaml

from cluster.observe.alerts import learning, run, serving
from cluster.observe.alerts.alert import RUNBOOK, Alert

GROUPS: dict[str, tuple[Alert, ...]] = {
    "advgame-run": run.ALERTS,
    "advgame-serving": serving.ALERTS,
    "advgame-learning": learning.ALERTS,
}
ALERTS: tuple[Alert, ...] = tuple(alert for group in GROUPS.values() for alert in group)
RULES = "deploy/prometheus/rules/advgame.rules.yml"
_HEAD = "# Made from the catalogue of metrics by `python -m cluster.observe.alerts`; do not edit.\n"


def render_rules(runbook: str = RUNBOOK) -> str:
    """The rule file's text, as Prometheus reads it.

    Args:
        runbook: the address of the runbook, for `runbook_url`.
    """
    groups = [{"name": name, "rules": [_rule(alert, runbook) for alert in alerts]} for name, alerts in GROUPS.items()]
    return _HEAD + yaml.dump({"groups": groups}, Dumper=_Dumper, sort_keys=False, width=1000)


def _rule(alert: Alert, runbook: str) -> dict[str, object]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        **({"for": alert.wait} if alert.wait else {}),
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": alert.section(runbook),
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
