"""What a learner group says when it gives up: which rank failed, where, and how.

Ray Train's own error is one long text that starts with its longest traceback; this one's message is a line, and the tracebacks come
apart. It imports neither Ray nor torch.
"""

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RankFailure:
    """One rank's end.

    Attributes:
        role: as its log is called.
        node: the address that Ray's dashboard shows; "" if not even Ray knows it.
        error: type and message, one line.
        traceback: of the rank's process, several lines; what Ray said, if the process died.
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
        error: type and first line of the message.
        trail: the traceback.
    """

    def __init__(self, node: str, error: str, trail: str) -> None:
        super().__init__(node, error, trail)
        self.node, self.error, self.trail = node, error, trail

    def __str__(self) -> str:
        return f"{self.error} (node {self.node})"


def rank_error(error: BaseException, node: str) -> RankError:
    """What a rank raises instead of `error`."""
    return RankError(node, in_a_line(error), "".join(traceback.format_exception(error)))


def in_a_line(error: BaseException) -> str:
    """Its type and its message's first line. Of a remote error, whose first lines are a traceback, the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    remote = any(line.startswith(("Traceback", "File ")) for line in lines)
    return f"{type(error).__name__}: {lines[-1 if remote else 0][:300]}" if lines else type(error).__name__


def read_failures(player: str, errors: Mapping[int, BaseException]) -> tuple[RankFailure, ...]:
    """What each rank failed of, the lowest rank first.

    Args:
        errors: by rank, as Ray Train has them: a `RankError`, or what Ray says of a process that died.
    """
    return tuple(_read(f"learner-{player}-{rank}", rank, error) for rank, error in sorted(errors.items()))


def _read(role: str, rank: int, error: BaseException) -> RankFailure:
    if isinstance(error, RankError):
        return RankFailure(role, rank, error.node, error.error, error.trail)
    return RankFailure(role, rank, node_in(error), in_a_line(error), "".join(traceback.format_exception(error)))


def node_in(error: BaseException) -> str:
    """The address of the node on which an actor died, from Ray's text about it; "" if it says none."""
    found = re.search(r"^\s*ip: (\S+)$", str(error), re.MULTILINE)
    return found[1] if found else ""
