"""`python -m tests.benchmarks [--json FILE] [--markdown FILE] [NAME ...]`: all without names.

Exit status 1 if a target is missed or a benchmark fails; the others are run and told all the same.
"""

import argparse
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cluster.inputs.package_versions import package_versions
from cluster.study.machine import describe_commit, describe_machine
from tests.benchmarks.harness import Result, run_one, save, show
from tests.benchmarks.page import Origin, update_page
from tests.paths import ROOT

MODULES = (
    "generation",
    "judge_pool",
    "learner",
    "push",
    "replay",
    "overlap",
    "coordination",
    "scale",
    "ceiling",
    "observing",
)


def origin_of() -> Origin:
    """This checkout, on this machine, today."""
    versions = package_versions() | {"pyarrow": version("pyarrow")}
    words = ", ".join(f"{name} {number}" for name, number in versions.items())
    return Origin(f"{datetime.now(UTC):%Y-%m-%d}", describe_commit(ROOT), describe_machine(), words)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", choices=[*MODULES, []], help="which; all without names")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    parser.add_argument("--markdown", type=Path, help="a page whose figures are written anew: docs/benchmarks.md")
    given = parser.parse_args()
    origin = origin_of()  # before: a checkout may change meanwhile
    found: dict[str, list[Result]] = {}
    failed: list[str] = []
    for module in given.names or MODULES:
        print(f"running {module}", file=sys.stderr, flush=True)
        try:
            found[module] = run_one(module)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(error, file=sys.stderr, flush=True)
            failed.append(module)
    results = [result for of_one in found.values() for result in of_one]
    show(results)
    save(given.json, results)
    if given.markdown:
        update_page(given.markdown, found, origin, MODULES)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 0 if not failed and all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
