"""What to do about a question that got no answer: keep the failure, leave it for the next time, or give up. Pure.

Invariants:
- an endpoint that refuses everything is given up at its first refusal, one that fails at random at `IN_A_ROW` failures in a row;
- a failure that is the prompt's own (it is too long, or filtered) never gives up the endpoint, and is final;
- every other failure is left out of the journal, so that the same command asks again.
"""

from typing import Literal

IN_A_ROW = 5  # each after the client's own retries: at 16 in flight they come from one outage, at one they took minutes
OF_THE_PROMPT = ("prompt too long", "content filtered")

Action = Literal["keep", "leave", "stop"]


class Breaker:
    """Counts the answers and failures of one model or judge."""

    def __init__(self) -> None:
        self._answers = self._in_a_row = 0

    def note_answer(self) -> None:
        """It answered."""
        self._answers += 1
        self._in_a_row = 0

    def note_failure(self, reason: str, permanent: bool) -> Action:
        """It did not.

        Args:
            reason: as `JudgeUnavailable` says it.
            permanent: the same request will fail again.
        """
        if reason.endswith(OF_THE_PROMPT):
            return "keep"
        self._in_a_row += 1
        refuses_all = permanent and not self._answers
        return "stop" if refuses_all or self._in_a_row >= IN_A_ROW else "leave"
