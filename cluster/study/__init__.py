"""The sandbox study: compares the game's variants, on several seeds each; every run is the real system.

`python -m cluster.study` (or `make study`) runs what is missing, one run after the other, and writes `docs/study.md`, `study.json`
and `study.svg`. Only `runner` and `__main__` start runs; the rest is pure functions over the runs' own `summary.json`.
"""
