"""Exit statuses of the commands. README.md, "Run it", tells users the same."""

FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130
