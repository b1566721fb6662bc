"""Faults in a whole, real run, held for a minute each: `make chaos`. Too long for CI."""
