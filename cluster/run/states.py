"""How a run ends, and what that means: the word in `summary.json`, the exit status, whether it can be resumed."""

from enum import Enum

from cluster.exits import FAILED, INTERRUPTED


class RunEnd(Enum):
    """An end of a run, or of the part of a run that one process drives.

    Attributes:
        word: as `summary.json` has it under `status`.
        exit_status: of `train`.
        resumable: whether `train --resume` goes on from here.
    """

    FINISHED = ("finished", 0, False)
    FAILED = ("failed", FAILED, True)
    INTERRUPTED = ("interrupted", INTERRUPTED, True)

    def __init__(self, word: str, exit_status: int, resumable: bool) -> None:
        self.word, self.exit_status, self.resumable = word, exit_status, resumable


def is_resumable(word: object) -> bool:
    """Whether a run with that `status` can be resumed. One without any, or with no word of ours, was cut off: it can."""
    return all(end.resumable for end in RunEnd if end.word == word)


class RunFailed(Exception):
    """The run cannot go on. The message is one line; the logs say more."""
