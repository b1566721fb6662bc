"""Replay: which games may start, where their rows lie, and which learner step learns them.

Pure parts: `admission` (may a game start), `backpressure` (do the engines bear it), `turns` (who learns now), `alarm` (can the
judge be asked), `dealer` (which game), `selectors` (which of those that wait), `table` (the life of a row), `facts` (what a row is
worth), `tally` (sums), `recovery`. Shells: `segments` and `journal` (disk), `commit` (group commit), `actor` (the Ray actor's
class), `client` (its callers' side). For people: `reader`, `choose`, `show`, `export` (`python -m cluster replay`).
"""
