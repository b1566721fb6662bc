"""The error that ends a run. How runs end, and what each end means, is `cluster.exits.RunEnd`."""


class RunFailed(Exception):
    """The run cannot go on. The message is one line, or a few below it that say more; the logs say most.

    Args:
        steps_left: whether a resumed run would have steps to take.
    """

    def __init__(self, message: str, steps_left: bool = True) -> None:
        super().__init__(message)
        self.steps_left = steps_left
