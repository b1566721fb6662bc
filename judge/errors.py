"""What a judge's generator raises when it has no text to give. `lm` turns it into a failed verdict, never into a number."""

GAVE_UP = "gave up"  # a verdict's `failure` begins so where asking again cannot help; the pool does not retry those


class JudgeUnavailable(Exception):
    """No text came.

    Args:
        reason: a few words, as a verdict's `failure` shows them and metrics count them ("rate limited", "budget spent").
        permanent: asking again cannot help (a wrong key, a spent budget, a prompt that is too long).
    """

    def __init__(self, reason: str, permanent: bool = False) -> None:
        super().__init__(reason, permanent)  # both: it is rebuilt from these when it crosses a process boundary
        self.reason, self.permanent = reason, permanent

    def __str__(self) -> str:
        return self.reason
