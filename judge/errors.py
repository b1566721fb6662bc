"""What a judge's generator raises when it has no text to give. `lm` makes a failed verdict of it, never a number."""


class JudgeUnavailable(Exception):
    """No text came.

    Args:
        reason: a few words, as a verdict's `failure` shows them and metrics count them ("rate limited", "budget spent").
        hopeless: asking again cannot help (a wrong key, a spent budget, a prompt that is too long).
    """

    def __init__(self, reason: str, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.hopeless = reason, hopeless
