"""Whole runs over several Ray nodes, each a network namespace of this machine: `make test-nodes`. Needs root and iproute2."""
