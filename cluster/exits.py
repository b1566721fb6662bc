"""How commands and runs end: exit statuses, and what the end of a run means. README.md, "Run it", tells users the same."""

from enum import Enum

FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130


class RunEnd(Enum):
    """An end of a run, or of the part of a run that one process drives.

    Attributes:
        word: as `summary.json` has it under `status`.
        exit_status: of `train`.
        resumable: whether `train --resume` goes on from here.
    """

    FINISHED = ("finished", 0, False)
    FAILED = ("failed", FAILED, True)
    MISTAKEN = ("failed", USER_ERROR, True)  # over a mistake of the user's that showed itself only while it ran
    INTERRUPTED = ("interrupted", INTERRUPTED, True)

    def __init__(self, word: str, exit_status: int, resumable: bool) -> None:
        self.word, self.exit_status, self.resumable = word, exit_status, resumable


def is_resumable(word: object) -> bool:
    """Whether a run with that `status` can be resumed. One without any, or with no word of ours, was cut off: it can."""
    return all(end.resumable for end in RunEnd if end.word == word)
