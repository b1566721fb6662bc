"""`python -m cluster`."""

import sys

import structlog

from cluster.cli.app import main

if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is the command's own
    main()
