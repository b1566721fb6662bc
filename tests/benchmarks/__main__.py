"""`python -m tests.benchmarks [--json FILE] [NAME ...]`: all without names.

Exit status 1 if a target is missed or a benchmark fails; the others are run and told all the same.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.harness import Result, run_one, save, show

MODULES = ("generation", "judge_pool", "learner", "push", "replay", "overlap", "coordination", "scale")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", choices=[*MODULES, []], help="which; all without names")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    given = parser.parse_args()
    results: list[Result] = []
    failed: list[str] = []
    for module in given.names or MODULES:
        print(f"running {module}", file=sys.stderr, flush=True)
        try:
            results += run_one(module)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(error, file=sys.stderr, flush=True)
            failed.append(module)
    show(results)
    save(given.json, results)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 0 if not failed and all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
