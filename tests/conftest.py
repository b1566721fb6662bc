"""What holds for all tests."""

import os

from hypothesis import settings

# Ray starts its workers with niceness 15: beside two busy loops they would get a thirtieth of a core, not half of one.
os.environ.setdefault("RAY_worker_niceness", "0")

# Hypothesis gives each example 0.2 s by the wall's clock, which says more about a busy machine than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
