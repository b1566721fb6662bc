"""What an alert is. See `cluster.observe.alerts`."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning"]  # somebody is to look now; today
RUNBOOK = "docs/runbook.md"  # in the checkout; where else people read it, only they know


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        name: in CamelCase, as alerts are named; `docs/runbook.md` has a section of that name.
        expr: PromQL; it gives a series for each run, role or player that the alert is about, and nothing where all is well.
        wait: how long it must hold before the alert fires ("2m"); empty: at once.
        summary: one line; templates of Prometheus may stand in it.
        description: with the value, and with the labels that say which run, role or player.
    """

    name: str
    severity: Severity
    expr: str
    wait: str
    summary: str
    description: str

    def section(self, runbook: str = RUNBOOK) -> str:
        """The address of its section, where the runbook has that address."""
        return f"{runbook}#{self.name.lower()}"
