"""What a judge's generator raises when it has no text to give. `lm` makes a failed verdict of it, never a number."""

GAVE_UP = "gave up"  # how a verdict's `failure` begins where asking again cannot help; the pool does not retry those


class JudgeUnavailable(Exception):
    """No text came.

    Args:
        reason: a few words, as a verdict's `failure` shows them and metrics count them ("rate limited", "budget spent").
        hopeless: asking again cannot help (a wrong key, a spent budget, a prompt that is too long).
    """

    def __init__(self, reason: str, hopeless: bool = False) -> None:
        super().__init__(
            reason, hopeless
        )  # all of them, because it is rebuilt from these when it crosses a process boundary
        self.reason, self.hopeless = reason, hopeless

    def __str__(self) -> str:
        return self.reason
