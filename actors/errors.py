"""What can go wrong between a game and the engine that serves it. Light: imports nothing, so that a client needs no vLLM.

Every class pickles, because it crosses a Ray boundary.
"""

from protocol.errors import DIGEST_MISMATCH
from protocol.exchange import AskFault, WorkerFault


class PromptTooLong(AskFault):
    """The prompt leaves no room for a single token. The game is given up (`prompt_too_long`); the run goes on."""


class GenerationDeadline(Exception):
    """No completion within `generation.deadline_s`, whatever the reason. The game is given up."""


class WeightsRefused(RuntimeError):
    """A push that was turned down before anything was loaded: the worker serves on under its old version."""

    reason = "refused"


class DigestMismatch(WeightsRefused):
    """The bytes of a push are not those that were announced."""

    reason = DIGEST_MISMATCH


class PushLate(TimeoutError):
    """A phase of a push was later than its deadline, before anything was loaded. `reason` names it, as in `pause_deadline`."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["PushLate"], tuple[str, str]]:
        return type(self), (str(self), self.reason)


class JoinFailed(RuntimeError):
    """A worker could not meet a learner. It serves as before."""

    reason = "join_failed"


class WorkerBroken(WorkerFault):
    """The engine holds weights that nobody vouches for, or is dead. It was thrown away and must be built anew.

    `reason` is one word: the late phase where that was it.
    """

    def __init__(self, message: str, reason: str = "broken") -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["WorkerBroken"], tuple[str, str]]:
        return type(self), (str(self), self.reason)
