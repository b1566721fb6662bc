"""`python -m cluster.observe.alerts`: writes the rule file into the checkout."""

from pathlib import Path

from cluster.observe.alerts import RULES, render_rules
from protocol.files import write_file

if __name__ == "__main__":
    write_file(Path(__file__).parents[3] / RULES, render_rules())
