"""What a learner group says when it gives up: which rank failed, where, and how.

Ray Train's own error is one long text that starts with its longest traceback; this one's message is a line, and the tracebacks come
apart. Neither has a message that may quote a row's text (`protocol.errors`). It imports neither Ray nor torch.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from protocol.errors import render, sum_up

# What torch, NCCL, gloo and DeepSpeed raise of tensors, devices and connections, where they have no type of their own for it.
NUMBERS_ONLY: Final = (RuntimeError,)


@dataclass(frozen=True, slots=True)
class RankFailure:
    """One rank's end.

    Attributes:
        role: as its log is called.
        node: the address that Ray's dashboard shows; "" if not even Ray knows it.
        error: type, and the message where it cannot quote a text; one line.
        traceback: of the rank's process, several lines, with no other messages; what Ray said, if the process died.
    """

    role: str
    rank: int
    node: str
    error: str
    traceback: str

    def __str__(self) -> str:
        where = f" on node {self.node}" if self.node else ""
        return f"{self.role} (rank {self.rank}){where}: {self.error}; see logs/{self.role}.log"


class GroupFailed(Exception):
    """A learner group failed more often than `learners.PLAYER.restarts` allows.

    Args:
        failures: of its last attempt, the lowest rank first; not empty.
    """

    def __init__(self, failures: tuple[RankFailure, ...]) -> None:
        others = len(failures) - 1
        super().__init__(f"{failures[0]}" + (f"; and {others} more of its ranks" if others else ""))
        self.failures = failures

    def __reduce__(self) -> tuple[type["GroupFailed"], tuple[tuple[RankFailure, ...]]]:
        return type(self), (self.failures,)


class RankError(Exception):
    """An error that left a rank's process, in texts: whatever it was, this can be pickled.

    Args:
        node: where the rank was.
        error: as in `RankFailure`.
        trail: the traceback.
    """

    def __init__(self, node: str, error: str, trail: str) -> None:
        super().__init__(node, error, trail)
        self.node, self.error, self.trail = node, error, trail

    def __str__(self) -> str:
        return f"{self.error} (node {self.node})"


def rank_error(error: BaseException, node: str) -> RankError:
    """What a rank raises instead of `error`."""
    return RankError(node, sum_up(error, NUMBERS_ONLY), render(error, NUMBERS_ONLY))


def read_failures(player: str, errors: Mapping[int, BaseException]) -> tuple[RankFailure, ...]:
    """What each rank failed of, the lowest rank first.

    Args:
        errors: by rank, as Ray Train has them: a `RankError`, or what Ray says of a process that died.
    """
    return tuple(_read(f"learner-{player}-{rank}", rank, error) for rank, error in sorted(errors.items()))


def _read(role: str, rank: int, error: BaseException) -> RankFailure:
    error = getattr(error, "_base_exc", error)  # Ray Train's wrapper, whose text is a whole traceback
    if isinstance(error, RankError):
        return RankFailure(role, rank, error.node, error.error, error.trail)
    return RankFailure(role, rank, node_in(error), sum_up(error), render(error))


def node_in(error: BaseException) -> str:
    """The address of the node on which an actor died, from Ray's text about it; "" if it says none."""
    found = re.search(r"^\s*ip: (\S+)$", str(error), re.MULTILINE)
    return found[1] if found else ""
