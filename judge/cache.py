"""Verdicts remembered, so that a question that was answered is not paid for again.

A question is everything that a verdict depends on but the sampling seed: who judges by which rubrics (the pool's `key`), the
criterion, the category, the query, and the responses in their order. Another judge, an edited rubric or the other order of a
pair is another question.

Invariants: a failure is never remembered; the least recently used go first, by number and by size.
"""

import hashlib
from collections import OrderedDict

from protocol.types import JudgeRequest, Verdict

RAW_CHARS_MAX = 2**28  # of the verdicts' words together: a judge that reasons at length would fill the memory first


def question(key: str, request: JudgeRequest) -> bytes:
    """A digest of the question. Each part goes in with its length, so that no two ways to divide a text are the same.

    Args:
        key: the judge and its rubrics (names with versions and digests), as one text.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (key, request.criterion, request.category, request.query, *request.responses):
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()


class VerdictCache:
    """Up to `entries` verdicts by question; 0 remembers nothing. Counts its `hits` and `misses`."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._chars = 0
        self.hits = self.misses = 0

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, asked: bytes) -> Verdict | None:
        """The verdict on a question, or None."""
        verdict = self._verdicts.get(asked)
        if verdict is None:
            self.misses += 1
            return None
        self.hits += 1
        self._verdicts.move_to_end(asked)
        return verdict

    def put(self, asked: bytes, verdict: Verdict) -> None:
        """Remembers a verdict, unless it is a failure."""
        if verdict.failure is not None:
            return
        old = self._verdicts.pop(asked, None)
        self._verdicts[asked] = verdict
        self._chars += len(verdict.raw) - (len(old.raw) if old else 0)
        while len(self._verdicts) > self._entries or self._chars > RAW_CHARS_MAX:
            _, gone = self._verdicts.popitem(last=False)
            self._chars -= len(gone.raw)
