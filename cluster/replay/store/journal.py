"""The journal: what happened to rows and games, one JSON object a line, append-only (`run_dir/replay/journal.jsonl`).

With the segments it is the whole state of the replay buffer. Events (`e` names them):

    finish   id, category, rows {player: n}, attack {state: n}, response {state: n},
             judge {verdicts, failed, comparisons, disagreements},
             judge_failed,        (a judge that is meant to answer failed on some of the game)
             at {row id: [segment, offset, index]}
                                  (its rows and where they lie: a game that was dealt again may have others on disk, from a
                                   play that was never finished. Events of earlier versions lack it: then all of the game's
                                   rows on disk are its rows)
    abandon  id, why
    evict    p, why, games        (stale and capacity. What is not taken in the first place follows from the rows and their
                                   `finish` event)
    lease    p, step, version, games
    seen     p, step, version    (a step asked under this version and did not get its games yet)
    ack      p, step
    rewind   p, step
    finished p                (the learner took its last step)
    alarm                     (the judge alarm rose)
    calm     s                (it ended after so many seconds; an alarm that a restart ended has no such line)
    lost     p, rows, at_least, games (a restart found so many unconfirmed rows missing; `games` are those whose `finish` reached
                              the disk before their rows)

Invariants: one writer (a lock on the file, freed by the system when the process dies); a torn last line is cut; a damaged line
before it is a `UserError`. It does not know what the events do (`recovery`).
"""

import json
import os
import time
from pathlib import Path

from cluster.replay.rules.events import Event, is_known
from cluster.replay.store.dirty import DirtyFlag
from protocol.errors import UserError
from protocol.locks import try_lock

JOURNAL = "journal.jsonl"  # in a run's replay folder
LOCK_WAIT_S = 20.0  # a killed predecessor is gone within a second or two; a living one stays


class Journal:
    """The journal of one run.

    Args:
        path: the file; created when missing.
        lock_wait_s: how long to wait for a dying predecessor.

    Raises:
        UserError: another process holds the journal, or its file system has no locks.
    """

    def __init__(self, path: Path, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._dirty = DirtyFlag()
        deadline = time.monotonic() + lock_wait_s
        while True:
            if try_lock(self._fd, path):
                return
            if time.monotonic() > deadline:
                os.close(self._fd)
                raise UserError(
                    f"{path}: still in use by another run after {lock_wait_s:g} s; "
                    "stop that run, or give this one another run.name"
                )
            time.sleep(0.1)

    def recover(self) -> tuple[list[Event], int]:
        """Every event in order, and how many bytes of a torn last line were cut off.

        Raises:
            UserError: a line before the last is no JSON object, or one is no event of this version.
        """
        data = self._path.read_bytes()
        events, whole = _parse(data, self._path)
        if whole < len(data):
            os.ftruncate(self._fd, whole)
            os.fsync(self._fd)
        return events, len(data) - whole

    def append(self, *events: Event) -> None:
        """Writes events; durable after the next `sync`."""
        if events:
            data = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events).encode()
            start = os.fstat(self._fd).st_size
            self._dirty.mark()
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                os.ftruncate(self._fd, start)  # a full disk must not leave half a line for the next event to follow
                raise

    def sync(self) -> None:
        """Everything appended so far is on disk when this returns. May run in another thread than `append`."""
        self._dirty.sync(self._fd)

    def close(self) -> None:
        """Syncs, and frees the lock."""
        self.sync()
        os.close(self._fd)


def read_events(path: Path) -> list[Event]:
    """Every event so far, without the lock and without touching the file; of a live run, one that is being written is left out.

    Raises:
        UserError: a line before the last is no JSON object, or one is no event of this version.
    """
    return _parse(path.read_bytes(), path)[0]


def _parse(data: bytes, path: Path) -> tuple[list[Event], int]:
    """The events, and how many bytes they take: the rest is a torn line."""
    whole = data.rfind(b"\n") + 1
    lines = data[:whole].splitlines()
    events: list[Event] = []
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            if number == len(lines):  # a power cut may leave the last line's length without its bytes
                return events, whole - len(line) - 1
            raise UserError(f"{path}: line {number} is damaged; restore it from a copy, or start a new run")
        if not is_known(event):
            raise UserError(
                f"{path}: line {number} is no event of this version; go on with the version that wrote it, or start a new run"
            )
        events.append(event)
    return events, whole
