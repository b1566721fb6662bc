"""Replay: which games may start, where their rows lie, and which learner step learns them.

- `rules/`, pure: `admission` (may a game start), `backpressure` (can the engines take it), `turns` (who learns now), `alarm` (does
  the judge answer), `dealer` (which game), `selectors` (which of the waiting games), `table` and `leases` (the life of a row),
  `facts` (what a row is worth), `tally` (sums).
- `store/`, the disk: `segments` and `segment_file` (rows), `journal` (events), `recovery` (the state after a restart, pure).
- `actor` (the Ray actor's class), `client` (its callers' side), `stats`.
- `read/`, for people: `reader`, `choose`, `show`, `export` (`python -m cluster replay`).
"""
