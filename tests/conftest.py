"""What holds for all tests."""

import os

# Ray starts its workers with niceness 15: beside two busy loops they would get a thirtieth of a core, not half of one.
os.environ.setdefault("RAY_worker_niceness", "0")
