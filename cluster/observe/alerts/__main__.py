"""`python -m cluster.observe.alerts`: writes the rule file into the checkout; with the runbook's address, to another place."""

from argparse import ArgumentParser
from pathlib import Path

from cluster.observe.alerts import RULES, render_rules
from cluster.observe.alerts.alert import RUNBOOK
from protocol.files import write_file

COMMITTED = Path(__file__).parents[3] / RULES

if __name__ == "__main__":
    options = ArgumentParser(prog="python -m cluster.observe.alerts", description="Writes the alert rules.")
    options.add_argument(
        "--runbook", metavar="URL", default=RUNBOOK, help="where docs/runbook.md is read, for runbook_url"
    )
    options.add_argument("--to", metavar="FILE", type=Path, help="where to write; needed with --runbook")
    given = options.parse_args()
    if given.runbook != RUNBOOK and given.to is None:
        options.error(
            "--runbook: the committed rules name the runbook by its path; say with --to FILE where these are to go"
        )
    try:
        write_file(given.to or COMMITTED, render_rules(given.runbook))
    except OSError as e:
        options.error(f"--to: {given.to or COMMITTED} cannot be written ({e.strerror}); give another file")
