"""Benchmarks: each measures ours and a limit or a peer in the same run, and gives the ratio. `make bench` runs them."""
