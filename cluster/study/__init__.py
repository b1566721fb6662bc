"""The sandbox study: the game's variants against each other, many seeds each, every run the real system.

`python -m cluster.study` (or `make study`) runs what is missing, one run after the other, and writes `docs/study.md`, `study.json`
and `study.svg`. Only `runner` and `__main__` start anything; the rest is pure functions over the runs' own `summary.json`.
"""
