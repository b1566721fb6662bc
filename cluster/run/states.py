"""The error that ends a run. How runs end, and what each end means, is `cluster.exits.RunEnd`."""


class RunFailed(Exception):
    """The run cannot go on. The message is one line, or a few below it that say more; the logs say most."""
